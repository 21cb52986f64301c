/** Reads of many pieces: what is announced whole must arrive whole, whatever happens half-way (J2, T1). */

import { describe, expect, test } from 'vitest';
import { Command, CommandFlag, Errno, type HeaderStyle } from '../../../src/nbd-server-protocol/constants.ts';
import { DelayVolume, Gate } from '../../support/volumes/delay-volume.ts';
import { FaultVolume } from '../../support/volumes/fault-volume.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';
import { ClosedByPeer } from '../../support/wire.ts';
import { lab, pattern } from './lab.ts';

const MIB = 1024 * 1024;
const content = pattern(12 * MIB);
const styles: readonly HeaderStyle[] = ['simple', 'structured', 'extended'];

describe.each(styles)('%s headers', (style) => {
  const flagSets = style === 'simple' ? [0] : [0, CommandFlag.df];

  test.each(flagSets)('12 MiB at once arrive as they are, flags %i', async (flags) => {
    await using server = await lab(new MemoryVolume(content));
    const session = await server.open({ style });
    const answer = await session.read(0, content.length, flags);
    expect(answer.error).toBe(0);
    expect(answer.data.equals(content)).toBe(true);
    if (flags !== 0) expect(answer.dataChunks).toBe(1);
  });

  test.each(flagSets)('the same from a volume that always waits, flags %i', async (flags) => {
    await using server = await lab(new DelayVolume(new MemoryVolume(content), () => Promise.resolve()));
    const session = await server.open({ style });
    const answer = await session.read(1, content.length - 2, flags);
    expect(answer.data.equals(content.subarray(1, -1))).toBe(true);
  });

  test.each(flagSets)('other replies do not cut it in two, flags %i', async (flags) => {
    const gate = new Gate();
    await using server = await lab(new DelayVolume(new MemoryVolume(content), gate.delay));
    const session = await server.open({ style });
    // Two long reads and many small requests, all answered in whatever order: the session checks every chunk.
    const small = Array.from({ length: 40 }, (_, index) => ({
      type: index % 2 === 0 ? Command.flush : Command.trim,
      offset: 0,
      length: 0,
    }));
    const long = { type: Command.read, offset: 0, length: 8 * MIB, flags };
    session.send(...small, long, ...small, long, ...small);
    const answers = await session.all();
    expect(answers.filter(({ error }) => error !== 0)).toEqual([]);
    const reads = answers.filter(({ data }) => data.length > 0);
    expect(reads).toHaveLength(2);
    for (const read of reads) expect(read.data.equals(content.subarray(0, 8 * MIB))).toBe(true);
  });
});

describe('a failure half-way', () => {
  function failingAt(offset: number): FaultVolume {
    const volume = new FaultVolume(new MemoryVolume(content));
    volume.inject({ operation: 'read', code: 'io', touching: offset, times: 100 });
    return volume;
  }

  test('chunks: an error chunk with the place, and the connection stays in step', async () => {
    await using server = await lab(failingAt(5 * MIB));
    const session = await server.open({ style: 'structured' });
    const failed = await session.read(0, content.length);
    expect(failed.error).toBe(Errno.EIO);
    expect((await session.read(6 * MIB, 4096)).data.equals(content.subarray(6 * MIB, 6 * MIB + 4096))).toBe(
      true,
    );
  });

  test('one chunk (DF): padded with zeroes to its length, then the error with its place', async () => {
    await using server = await lab(failingAt(5 * MIB));
    const session = await server.open({ style: 'extended' });
    const failed = await session.read(0, content.length, CommandFlag.df);
    expect(failed.error).toBe(Errno.EIO);
    expect(Number(failed.errorOffset)).toBeLessThanOrEqual(5 * MIB);
    expect(Number(failed.errorOffset)).toBeGreaterThan(0);
    expect((await session.read(0, 4096)).error).toBe(0);
  });

  test('a simple reply that has begun: the connection is closed, others go on', async () => {
    await using server = await lab(failingAt(5 * MIB));
    const healthy = await server.open({ style: 'simple' });
    const session = await server.open({ style: 'simple' });
    await expect(session.read(0, content.length)).rejects.toBeInstanceOf(ClosedByPeer);
    expect((await healthy.read(0, 4096)).error).toBe(0);
  });

  test('a simple reply that has not begun: the error, and the connection stays', async () => {
    await using server = await lab(failingAt(0));
    const session = await server.open({ style: 'simple' });
    expect((await session.read(0, content.length)).error).toBe(Errno.EIO);
    expect((await session.read(8 * MIB, 4096)).error).toBe(0);
  });
});
