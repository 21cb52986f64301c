/** An export that gets smaller under requests that had passed their checks at the old size: refused, not fatal. */

import { expect, test } from 'vitest';
import { Command, Errno } from '../../../src/nbd-server-protocol/constants.ts';
import { DelayVolume, Gate } from '../../support/volumes/delay-volume.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';
import { lab, pattern } from './lab.ts';

const MIB = 1024 * 1024;

test.each(['simple', 'structured', 'extended'] as const)('a long read, %s headers', async (style) => {
  const gate = new Gate();
  await using server = await lab(new DelayVolume(new MemoryVolume(pattern(12 * MIB)), gate.delay));
  const session = await server.open({ style });
  gate.shut('read');
  session.send({ type: Command.read, offset: 0, length: 8 * MIB }, { type: Command.resize, offset: 4096 });
  expect((await session.next()).error).toBe(0);
  gate.open();
  expect((await session.next()).error).toBe(Errno.EINVAL);
  expect((await session.read(0, 4096)).data.equals(pattern(4096))).toBe(true);
});

test('a write whose pieces are still coming', async () => {
  await using server = await lab(new MemoryVolume(pattern(12 * MIB)));
  const session = await server.open({ style: 'structured' });
  const payload = Buffer.alloc(4 * MIB, 7);
  session.send({ type: Command.resize, offset: 4096 }, { type: Command.write, offset: 8 * MIB, payload });
  const answers = await session.all();
  expect(answers[0]?.error).toBe(0);
  expect([Errno.EINVAL, Errno.ENOSPC]).toContain(answers[1]?.error);
  expect((await session.read(0, 4096)).error).toBe(0);
});
