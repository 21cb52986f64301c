/** Reads that would miss are not tried on the event loop again and again, and no connection suffers for another. */

import { expect, test } from 'vitest';
import type { Session } from '../../support/nbd-session.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';
import { type Call, WrappedVolume } from '../../support/volumes/wrapped-volume.ts';
import { lab, pattern } from './lab.ts';

const content = pattern(1024 * 1024);

/** A volume with a switch: all in memory, or all on a disk. */
class ColdVolume extends WrappedVolume {
  cold = false;
  tries = 0;

  protected override around<T>(_call: Call, operation: () => Promise<T>): Promise<T> {
    return operation();
  }

  protected override aroundNow(_call: Call, operation: () => boolean): boolean {
    this.tries += 1;
    return !this.cold && operation();
  }
}

async function readOneByOne(session: Session, count: number): Promise<void> {
  for (let index = 0; index < count; index += 1) {
    const { data } = await session.read(index * 4096, 4096);
    expect(data.equals(content.subarray(index * 4096, (index + 1) * 4096))).toBe(true);
  }
}

test('a connection whose reads miss has few of them tried, until one hits', async () => {
  const volume = new ColdVolume(new MemoryVolume(content));
  await using server = await lab(volume);
  const session = await server.open();
  volume.cold = true;
  await readOneByOne(session, 200);
  expect(volume.tries).toBeGreaterThan(10); // it goes on finding out
  expect(volume.tries).toBeLessThan(40);
  volume.cold = false;
  await readOneByOne(session, 20);
  volume.tries = 0;
  await readOneByOne(session, 100);
  expect(volume.tries).toBe(100);
});

test('other connections have theirs tried', async () => {
  const volume = new ColdVolume(new MemoryVolume(content));
  await using server = await lab(volume);
  const missing = await server.open();
  const other = await server.open();
  volume.cold = true;
  await readOneByOne(missing, 50);
  volume.cold = false;
  volume.tries = 0;
  await readOneByOne(other, 50);
  expect(volume.tries).toBe(50);
});
