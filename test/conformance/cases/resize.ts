/** NBD_CMD_RESIZE, where it is advertised: on the second disk, whose size no other case relies on. */
import { Buffer } from 'node:buffer';
import { Command, CommandFlag, TransmissionFlag } from '../../../src/nbd-server-protocol/constants.ts';
import { Lacks, type Session } from '../../support/nbd-session.ts';
import { eventually } from '../../support/tools.ts';
import type { Count } from '../../support/wire.ts';
import { allStyles, type Case, dataWord, errorName, type Lab, requestOutcome } from '../lab.ts';
import { disk, EXPORT, MiB } from '../servers.ts';

const RESIZE = 'RESIZE extension: NBD_CMD_RESIZE';
const size = disk.sizeBytes;

function needsResize(session: Session): Session {
  if (!session.has(TransmissionFlag.sendResize)) throw new Lacks('SEND_RESIZE');
  return session;
}

function inStyles(
  name: string,
  permits: readonly string[],
  observe: (session: Session, lab: Lab) => Promise<string>,
): readonly Case[] {
  return allStyles.map((style) => ({
    name: `${style}: RESIZE ${name}`,
    section: RESIZE,
    permits,
    observe: async (lab) => {
      if (!lab.target.hasOtherDisk) throw new Lacks('a second disk');
      const session = await lab.session(style, { exportName: lab.otherExport });
      return await observe(needsResize(session), lab);
    },
  }));
}

const resize = async (session: Session, to: Count): Promise<string> =>
  errorName((await session.ask({ type: Command.resize, offset: to })).error);

/** A client leaves, and the other one may shrink the export as soon as the server has seen that. */
async function shrinkBack(session: Session, leaving: Session): Promise<string> {
  leaving.send({ type: Command.disconnect });
  await leaving.wire.drain();
  leaving.wire.destroy();
  return await eventually('the export is back at its size', async () => {
    const seen = await resize(session, size);
    return seen === 'EPERM' ? undefined : seen;
  });
}

/** Grows, looks what the new bytes are and whether new clients see them, and goes back. */
async function grow(session: Session, lab: Lab): Promise<string> {
  const before = errorName((await session.read(size, 512)).error);
  const grown = await resize(session, size + MiB);
  const { data } = await session.read(size, MiB);
  const next = await lab.session('simple', { exportName: lab.otherExport });
  const seen = Number(next.terms.sizeBytes) - size;
  const written = errorName((await session.write(size + MiB - 512, Buffer.alloc(512, 9))).error);
  const back = await shrinkBack(session, next);
  return `${before}, ${grown}, ${dataWord(data, Buffer.alloc(MiB))}, ${seen / MiB} MiB more, ${written}, ${back}`;
}

async function aroundTheCut(client: Session): Promise<string> {
  const gone = await client.read(size - 512, 512);
  const written = await client.write(size - 512, Buffer.alloc(512));
  const kept = await client.read(size - MiB - 512, 512);
  return [gone, written, kept].map(({ error }) => errorName(error)).join(' ');
}

/** Shrinks: what is gone is out of bounds from then on. */
async function shrink(session: Session): Promise<string> {
  // The client of the case before may still be known.
  const shrunk = await eventually('the export shrinks', async () => {
    const seen = await resize(session, size - MiB);
    return seen === 'EPERM' ? undefined : seen;
  });
  const seen = await aroundTheCut(session);
  return `${shrunk}: ${seen}: ${await resize(session, size)}`;
}

/** With another client about, shrinking may be refused; if it is not, it holds for that client as well. */
async function shrinkUnderOther(session: Session, lab: Lab): Promise<string> {
  const other = await lab.session('simple', { exportName: lab.otherExport });
  const shrunk = await resize(session, size - MiB);
  const seen = await aroundTheCut(other);
  return `${shrunk}: ${seen}: ${await resize(session, size)}`;
}

const impossible = (name: string, to: Count): readonly Case[] =>
  inStyles(`to ${name}`, ['EINVAL', 'ENOSPC', 'EIO', 'EPERM'], (session) =>
    requestOutcome(session, { type: Command.resize, offset: to }),
  );

const flags: readonly Case[] = inStyles('with every flag', ['takes FUA'], async (session) => {
  const taken: string[] = [];
  for (let bit = 0; bit < 16; bit += 1) {
    const fields = { type: Command.resize, offset: size, flags: 1 << bit };
    // The payload flag announces a payload of length 0.
    const seen = await requestOutcome(session, fields);
    if (seen !== 'EINVAL')
      taken.push(1 << bit === CommandFlag.fua && seen === 'ok' ? 'FUA' : `bit ${bit} ${seen}`);
  }
  return `takes ${taken.join(' ')}`;
});

const readOnly: readonly Case[] = allStyles.map((style) => ({
  name: `${style}, read-only: RESIZE`,
  section: RESIZE,
  permits: ['EPERM', 'EINVAL'],
  observe: async (lab) => {
    needsResize(await lab.session(style, { exportName: EXPORT }));
    const session = await lab.readOnlySession(style);
    if (session.has(TransmissionFlag.sendResize)) return 'a read-only export offers RESIZE';
    return await requestOutcome(session, { type: Command.resize, offset: size });
  },
}));

export const resizeCases: readonly Case[] = [
  ...inStyles('to more, and back', ['EINVAL, ok, right data, 1 MiB more, ok, ok'], grow),
  ...inStyles('to less, and back', ['ok: EINVAL ENOSPC ok: ok'], shrink),
  ...inStyles(
    'to less, while another client is connected',
    ['EPERM: ok ok ok: ok', 'ok: EINVAL ENOSPC ok: ok'],
    shrinkUnderOther,
  ),
  ...inStyles('to the size that it has', ['ok'], (session) => resize(session, size)),
  ...impossible('2^63', 1n << 63n),
  ...impossible('2^64 - 1', (1n << 64n) - 1n),
  ...impossible('2^53 + 4096', (1n << 53n) + 4096n),
  ...flags,
  ...readOnly,
];
