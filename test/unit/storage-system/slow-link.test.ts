import { readFileSync } from 'node:fs';
import { afterEach, expect, test } from 'vitest';
import { type LogLine, recordingLog } from '../../support/log.ts';
import { allDuplex, type LabGroup, MemberLab } from '../../support/member-lab.ts';
import { SlowLink } from '../../support/slow-link.ts';
import { MiB } from '../../support/storage-system.ts';
import { eventually } from '../../support/tools.ts';

/** What hosts have under way takes it twice as long as a peer may be silent. */
const BYTES_PER_SECOND = 4 * MiB;
const ACK_MS = 1_000;

let lab: MemberLab;
let link: SlowLink;
afterEach(async () => {
  await lab[Symbol.asyncDispose]();
  await link[Symbol.asyncDispose]();
});

/** s1 reaches s2 over a slow link. */
async function overSlowLink(lines: LogLine[], sizeBytes: number): Promise<LabGroup> {
  lab = await MemberLab.start({
    limits: { ackMs: ACK_MS },
    log: recordingLog(lines),
    peerAt: async (name, target) => {
      if (name !== 's2') return target;
      const made = await SlowLink.start(target, BYTES_PER_SECOND);
      link = made;
      return made.address;
    },
  });
  const made = await lab.makeGroup(sizeBytes);
  await allDuplex(made);
  await eventually(
    'the primary knows',
    () => changesOf(lines).includes('joining > duplex: recorded') || undefined,
  );
  lines.length = 0;
  return made;
}

function changesOf(lines: readonly LogLine[]): string[] {
  return lines
    .filter(({ text }) => text === 'pair changed')
    .map(({ from, to, cause }) => `${from} > ${to}: ${cause}`);
}

test('busy hosts over a slow link: what queues for it is no silence, and the pair stays duplex', async () => {
  const lines: LogLine[] = [];
  const made = await overSlowLink(lines, 16 * MiB);
  const [copy] = made.copies;
  if (copy === undefined) throw new Error('a group has copies');
  const volume = lab.volume(copy);
  const write = (at: number, length: number) =>
    volume.write(at, Buffer.alloc(length, at / MiB + 1), 0, length, false);
  await Promise.all(Array.from({ length: 8 }, (_, at) => write(at * MiB, MiB)));
  link.bytesPerSecond = MiB / 2; // one message alone takes as long
  await write(0, MiB);
  expect(changesOf(lines)).toEqual([]);
  expect(link.bytes).toBeGreaterThan(9 * MiB);
  const [first, second] = made.files.map((file) => readFileSync(file));
  expect(second?.equals(first as Buffer)).toBe(true);
});

test('a link that falls silent with writes on it is noticed', async () => {
  const lines: LogLine[] = [];
  const made = await overSlowLink(lines, 16 * MiB);
  const [copy] = made.copies;
  if (copy === undefined) throw new Error('a group has copies');
  const volume = lab.volume(copy);
  const writes = Promise.all(
    Array.from({ length: 16 }, (_, at) => volume.write(at * MiB, Buffer.alloc(MiB, 1), 0, MiB, false)),
  );
  await eventually('some of it has arrived', () => link.bytes > 2 * MiB || undefined);
  link.silence();
  await writes; // answered once the record says suspended
  expect(changesOf(lines)).toContain('duplex > leaving: no answer in time');
  const pair = made.group.segment.copies.find(({ role }) => role === 'secondary');
  expect(pair).toMatchObject({ pair: 'suspended', reason: 'unreachable' });
});
