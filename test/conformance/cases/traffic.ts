/** How messages travel: many at once, in pieces, halves of connections, and clients that misbehave as a whole. */
import { Buffer } from 'node:buffer';
import { Command, CommandFlag, TransmissionFlag } from '../../../src/nbd-server-protocol/constants.ts';
import { Lacks, type Session } from '../../support/nbd-session.ts';
import { allStyles, type Case, dataWord, errorName, type Lab, requestInStep } from '../lab.ts';
import { disk, EXPORT, KiB, MiB, pattern } from '../servers.ts';

const TRANSMISSION = 'Transmission';
const ORDERING = 'Ordering of messages and writes';
const DISC = 'Request types: NBD_CMD_DISC';

function inStyles(
  name: string,
  section: string,
  permits: readonly string[],
  observe: (session: Session, lab: Lab) => Promise<string>,
): readonly Case[] {
  return allStyles.map((style) => ({
    name: `${style}: ${name}`,
    section,
    permits,
    observe: async (lab) => await observe(await lab.session(style), lab),
  }));
}

const cookies = ([0n, 1n, 0x8000_0000_0000_0000n, 0xffff_ffff_ffff_ffffn] as const).flatMap((cookie) =>
  inStyles(`cookie 0x${cookie.toString(16)}`, TRANSMISSION, ['echoed'], async (session) => {
    const good = await session.ask({ type: Command.read, cookie, length: 512 });
    const bad = await session.ask({ type: Command.read, cookie, offset: disk.sizeBytes, length: 512 });
    return good.cookie === cookie && bad.cookie === cookie ? 'echoed' : 'lost';
  }),
);

/** Reads of 512 bytes at places that tell them apart. */
async function manyReads(session: Session, count: number): Promise<string> {
  const places = new Map<bigint, number>();
  const requests = Array.from({ length: count }, (_, index) => {
    const cookie = session.nextCookie();
    const offset = (index * 1536) % (disk.dataBytes - 512);
    places.set(cookie, offset);
    return { type: Command.read, cookie, offset, length: 512 };
  });
  session.send(...requests);
  for (const { cookie, error, data } of await session.all())
    if (error !== 0 || !data.equals(pattern(places.get(cookie)!, 512)))
      return `${errorName(error)} or wrong data`;
  return 'all right';
}

const pipelines = [
  ...inStyles('1000 reads in one segment', TRANSMISSION, ['all right'], (session) =>
    manyReads(session, 1000),
  ),
  ...inStyles(
    'writes and reads mixed in one segment',
    TRANSMISSION,
    ['all ok, right data'],
    async (session, lab) => {
      const offset = lab.scratch(MiB);
      const writes = Array.from({ length: 64 }, (_, index) => ({
        type: Command.write,
        offset: offset + index * 4096,
        payload: pattern(offset + index * 4096, 1000 + index * 40),
        flags: session.payloadFlag,
      }));
      const reads = writes.map(() => ({ type: Command.read, offset: 0, length: 777 }));
      session.send(...writes.flatMap((write, index) => [write, reads[index]!]));
      const failed = (await session.all()).filter(({ error }) => error !== 0).length;
      const last = writes.at(-1)!;
      const { data } = await session.read(last.offset, last.payload.length);
      return `${failed === 0 ? 'all ok' : `${failed} failed`}, ${dataWord(data, last.payload)}`;
    },
  ),
  ...inStyles(
    'bad and good requests in one segment',
    TRANSMISSION,
    ['EINVAL ok EINVAL ok ok'],
    async (session) => {
      const requests = [
        { type: Command.read, offset: disk.sizeBytes, length: 1 },
        { type: Command.read, length: 512 },
        { type: 99 },
        { type: Command.flush },
        { type: Command.read, length: 4096 },
      ].map((fields) => ({ ...fields, cookie: session.nextCookie() }));
      session.send(...requests);
      const answers = await session.all();
      const byCookie = new Map(answers.map(({ cookie, error }) => [cookie, errorName(error)]));
      return requests.map(({ cookie }) => byCookie.get(cookie)).join(' ');
    },
  ),
];

const splitTurns = inStyles(
  'a write and a read split at every byte',
  TRANSMISSION,
  ['always right'],
  async (session, lab) => {
    const offset = lab.scratch(MiB);
    const headerBytes = session.terms.style === 'extended' ? 32 : 28;
    for (let at = 1; at < 2 * headerBytes + 20; at += 1) {
      const payload = pattern(at * 4, 20);
      const bytes = Buffer.concat([
        session.prepare({ type: Command.write, offset, payload, flags: session.payloadFlag }),
        session.prepare({ type: Command.read, length: 16 }),
      ]);
      await session.wire.sendInPieces(bytes.subarray(0, at), at);
      session.wire.send(bytes.subarray(at));
      const failed = (await session.all()).some(({ error }) => error !== 0);
      const { data } = await session.read(offset, 20);
      if (failed || !data.equals(payload)) return `wrong when split at ${at}`;
    }
    return 'always right';
  },
);

const dribbled = inStyles('requests byte by byte', TRANSMISSION, ['right data'], async (session, lab) => {
  const offset = lab.scratch(MiB);
  const payload = pattern(99, 130);
  const write = session.prepare({ type: Command.write, offset, payload, flags: session.payloadFlag });
  const flush = session.prepare({ type: Command.flush });
  await session.wire.sendInPieces(Buffer.concat([write, flush]), 1);
  await session.all();
  return dataWord((await session.read(offset, 130)).data, payload);
});

const bigInPieces = inStyles(
  'a write of 1 MiB in pieces of 1 KiB',
  TRANSMISSION,
  ['right data'],
  async (session, lab) => {
    const offset = lab.scratch(2 * MiB);
    const payload = pattern(offset, MiB);
    const bytes = session.prepare({ type: Command.write, offset, payload, flags: session.payloadFlag });
    await session.wire.sendInPieces(bytes, 1021);
    await session.all();
    return dataWord((await session.read(offset, MiB)).data, payload);
  },
);

const halfClosed = inStyles(
  'a client that closes its half behind its requests',
  'Terminating the transmission phase',
  ['all answered, closed', 'closed'],
  async (session) => {
    session.send(...Array.from({ length: 8 }, () => ({ type: Command.read, length: 4096 })));
    session.wire.halfClose();
    await session.all();
    return (await session.wire.readToEnd()).length === 0 ? 'all answered, closed' : 'more bytes';
  },
);

const disconnectWaits = [
  ...inStyles(
    'DISC behind writes: they are answered first',
    DISC,
    ['16 ok, right data'],
    async (session, lab) => {
      const offset = lab.scratch(4 * MiB);
      const writes = Array.from({ length: 16 }, (_, index) => ({
        type: Command.write,
        offset: offset + index * 128 * KiB,
        payload: pattern(offset + index, 128 * KiB),
        flags: session.payloadFlag | session.fuaFlag,
      }));
      session.send(...writes, { type: Command.disconnect });
      const answers = await session.all();
      const rest = await session.wire.readToEnd();
      const ok = answers.filter(({ error }) => error === 0).length;
      const next = await lab.session('simple');
      const { data } = await next.read(writes[15]!.offset, 128 * KiB);
      return `${ok} ok, ${rest.length > 0 ? 'more bytes' : dataWord(data, writes[15]!.payload)}`;
    },
  ),
  ...inStyles('a request behind DISC is not served', DISC, ['closed'], async (session) => {
    session.send({ type: Command.disconnect }, { type: Command.read, length: 512 });
    return errorName((await session.next()).error);
  }),
];

/** Ways to leave in the midst of something; afterwards a new client must be served. */
function leaving(name: string, act: (session: Session, lab: Lab) => Promise<void>): readonly Case[] {
  return inStyles(
    `a client leaves ${name}`,
    'Terminating the transmission phase',
    ['next client: served'],
    async (session, lab) => {
      await act(session, lab);
      return `next client: ${await requestInStep(await lab.session('simple'), 'served')}`;
    },
  );
}

const partOfWrite = (session: Session, lab: Lab, bytes: number): Buffer =>
  session
    .prepare({
      type: Command.write,
      offset: lab.scratch(2 * MiB),
      payload: Buffer.alloc(MiB, 0x44),
      flags: session.payloadFlag,
    })
    .subarray(0, bytes);

const leavings = [
  ...leaving('in the midst of a header', async (session, lab) => {
    await session.wire.sendAll(partOfWrite(session, lab, 11));
    session.wire.destroy();
  }),
  ...leaving('in the midst of a payload', async (session, lab) => {
    await session.wire.sendAll(partOfWrite(session, lab, 300 * KiB));
    session.wire.destroy();
  }),
  ...leaving('in the midst of a payload, with a reset', async (session, lab) => {
    await session.wire.sendAll(partOfWrite(session, lab, 300 * KiB));
    session.wire.destroy('reset');
  }),
  ...leaving('without reading the answer to a read of 32 MiB', async (session) => {
    session.send({ type: Command.read, length: 32 * MiB });
    await session.wire.read(1);
    session.wire.destroy('reset');
  }),
];

/** The bytes that a client did not take must not reach the next one, which may have its descriptor. */
const leftovers = inStyles(
  'clients that leave with answers on the way, and clients that come',
  'Terminating the transmission phase',
  ['served'],
  async (first, lab) => {
    const { style } = first.terms;
    for (let round = 0; round < 15; round += 1) {
      const leaving = [await lab.session(style), await lab.session(style)];
      for (const { wire } of leaving) wire.pause();
      for (const session of leaving) session.send({ type: Command.read, length: 16 * MiB });
      await requestInStep(first, '');
      for (const { wire } of leaving) wire.destroy('reset');
      const next = await Promise.all([1, 2, 3].map(() => lab.session(style)));
      for (const session of next) {
        const seen = await requestInStep(session, 'served');
        session.wire.destroy();
        if (seen !== 'served') return seen;
      }
    }
    return 'served';
  },
);

const manyConnections: Case = {
  name: '100 connections at once',
  section: TRANSMISSION,
  permits: ['100 all right'],
  observe: async (lab) => {
    const sessions = await Promise.all(Array.from({ length: 100 }, () => lab.session('structured')));
    const seen = await Promise.all(sessions.map((session) => manyReads(session, 20)));
    return `${seen.filter((word) => word === 'all right').length} all right`;
  },
};

/** An export with CAN_MULTI_CONN: what was answered on one connection is flushed, and seen, on the others. */
const multiConn: Case = {
  name: 'structured: a write on one connection, a flush on another, a read on a third',
  section: 'Transmission flags: CAN_MULTI_CONN',
  permits: ['ok, ok, right data'],
  observe: async (lab) => {
    const [writer, flusher, reader] = [
      await lab.session('structured'),
      await lab.session('structured'),
      await lab.session('simple'),
    ];
    if (!writer.has(TransmissionFlag.canMultiConn)) throw new Lacks('CAN_MULTI_CONN');
    const offset = lab.scratch(MiB);
    const payload = pattern(offset + 4, 64 * KiB);
    const written = await writer.write(offset, payload);
    const flushed = await flusher.ask({ type: Command.flush });
    const { data } = await reader.read(offset, payload.length);
    return `${errorName(written.error)}, ${errorName(flushed.error)}, ${dataWord(data, payload)}`;
  },
};

/** Many clients on one range: each sees whole writes of one of them. */
const overlapping: Case = {
  name: 'structured: 8 connections write the same 4 KiB',
  section: ORDERING,
  permits: ['one of them won'],
  observe: async (lab) => {
    const offset = lab.scratch(MiB);
    const sessions = await Promise.all(Array.from({ length: 8 }, () => lab.session('structured')));
    await Promise.all(sessions.map((session, index) => session.write(offset, Buffer.alloc(4096, index + 1))));
    const { data } = await sessions[0]!.read(offset, 4096);
    return data[0]! >= 1 && data[0]! <= 8 && data.equals(Buffer.alloc(4096, data[0]!))
      ? 'one of them won'
      : 'mixed';
  },
};

const fuaEverywhere: Case = {
  name: 'structured: FUA on a flush and on a read',
  section: 'Command flags',
  permits: ['ok, ok'],
  observe: async (lab) => {
    const session = await lab.session('structured');
    if (!session.has(TransmissionFlag.sendFua)) throw new Lacks('SEND_FUA');
    const flushed = await session.ask({ type: Command.flush, flags: CommandFlag.fua });
    const read = await session.read(0, 512, CommandFlag.fua);
    return `${errorName(flushed.error)}, ${errorName(read.error)}`;
  },
};

const twoExports: Case = {
  name: 'structured: two exports do not share their bytes',
  section: TRANSMISSION,
  permits: ['right data, right data'],
  observe: async (lab) => {
    if (!lab.target.hasOtherDisk) throw new Lacks('a second disk');
    const offset = lab.scratch(MiB);
    const one = await lab.session('structured', { exportName: EXPORT });
    const other = await lab.session('structured', { exportName: lab.otherExport });
    await one.write(offset, pattern(1000, 4096));
    const seen = dataWord((await one.read(offset, 4096)).data, pattern(1000, 4096));
    return `${seen}, ${dataWord((await other.read(offset, 4096)).data, Buffer.alloc(4096))}`;
  },
};

export const trafficCases: readonly Case[] = [
  ...cookies,
  ...pipelines,
  ...splitTurns,
  ...dribbled,
  ...bigInPieces,
  ...halfClosed,
  ...disconnectWaits,
  ...leavings,
  ...leftovers,
  manyConnections,
  multiConn,
  overlapping,
  fuaEverywhere,
  twoExports,
];
