/** Exports whose volume is at another server: what is asked of it, and how it is answered. */

import { expect, test } from 'vitest';
import { type NbdExport, NbdServer } from '../../../src/nbd/server.ts';
import { silentLog } from '../../support/log.ts';
import { Session } from '../../support/nbd-session.ts';
import { type Delay, DelayVolume } from '../../support/volumes/delay-volume.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';
import type { Address } from '../../support/wire.ts';
import { pattern } from './lab.ts';

const MIB = 1024 * 1024;

async function serve(nbdExport: NbdExport): Promise<[NbdServer, Address]> {
  const server = new NbdServer({
    exports: { list: () => [nbdExport], find: () => nbdExport },
    log: silentLog,
  });
  return [server, (await server.listen({ host: '127.0.0.1', port: 0 })) as Address];
}

test('zeroes are sent, rather than holes asked for, up to a length', async () => {
  const volume = new MemoryVolume(Buffer.alloc(4 * MIB));
  await volume.trim(0, 4 * MIB);
  const [server, address] = await serve({ name: 'disk', volume, distant: true });
  const session = await Session.open(address);
  const [short, long] = [await session.read(0, MIB), await session.read(0, 2 * MIB)];
  expect([short.dataChunks > 0, short.holeChunks]).toEqual([true, 0]);
  expect([long.dataChunks, long.holeChunks]).toEqual([0, 1]);
  session.wire.destroy();
  await server.stop();
});

test.each(['simple', 'structured', 'extended'] as const)(
  'up to 1 MiB is one read, %s headers',
  async (style) => {
    const reads: number[] = [];
    const count: Delay = async ({ operation, length }) => {
      if (operation === 'read') reads.push(length);
    };
    const volume = new DelayVolume(new MemoryVolume(pattern(4 * MIB)), count);
    const [server, address] = await serve({ name: 'disk', volume, distant: true });
    const session = await Session.open(address, { style });
    for (const [offset, length] of [
      [4096, MIB],
      [1, MIB + 1],
    ] as const) {
      const answer = await session.read(offset, length);
      expect(answer.data.equals(pattern(4 * MIB).subarray(offset, offset + length))).toBe(true);
    }
    expect(reads[0]).toBe(MIB);
    expect(reads.slice(1).reduce((sum, length) => sum + length, 0)).toBe(MIB + 1);
    session.wire.destroy();
    await server.stop();
  },
);
