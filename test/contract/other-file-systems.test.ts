/** The contract for sparse files on file systems that can do less than ext4, xfs and tmpfs. */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Volume } from '../../src/model/volume.ts';
import { type Mount, mountOverlay, mountRamfs } from '../support/disk.ts';
import { outcomeOf } from './model-run.ts';
import { sparseFile } from './sparse-file-subject.ts';
import { volumeContract } from './volume-contract.ts';

describe.each([
  ['without holes (ramfs)', mountRamfs],
  ['without RWF_NOWAIT (overlay)', mountOverlay],
])('a file system %s', (name, mountIt) => {
  let mount: Mount;
  beforeAll(async () => {
    mount = await mountIt();
  });
  afterAll(() => mount.remove());
  volumeContract(`SparseFile ${name}`, { make: (contents) => sparseFile(mount.path, contents, false) });
});

/** The file is closed before the file system goes, whatever happens in between: else it could not be unmounted. */
async function withVolume(
  mountIt: () => Promise<Mount>,
  contents: Buffer,
  use: (volume: Volume) => Promise<void>,
): Promise<void> {
  const mount = await mountIt();
  try {
    const { volume, dispose } = await sparseFile(mount.path, contents, false);
    await use(volume).finally(dispose);
  } finally {
    await mount.remove();
  }
}

test('without holes there is no trim and no fast zero to offer, and zeroes are written', async () => {
  await withVolume(mountRamfs, Buffer.alloc(3 * 1024 * 1024, 1), async (volume) => {
    expect(volume.capabilities).toMatchObject({
      write: true,
      trim: false,
      writeZeroes: true,
      fastZero: false,
    });
    const length = 3 * 1024 * 1024 - 2;
    const fast = volume.writeZeroes(1, length, { fua: false, noHole: false, fast: true });
    expect(await outcomeOf(fast)).toBe('not-supported');
    await volume.writeZeroes(1, length, { fua: true, noHole: false, fast: false });
    const bytes = Buffer.alloc(length + 2);
    await volume.read(0, bytes, 0, bytes.length);
    expect([bytes[0], bytes.at(-1)]).toEqual([1, 1]);
    expect(bytes.subarray(1, -1).every((byte) => byte === 0)).toBe(true);
  });
});

test('without RWF_NOWAIT reads are never done on the event loop', async () => {
  await withVolume(mountOverlay, Buffer.alloc(8192, 1), async (volume) => {
    const target = Buffer.alloc(4096);
    expect(volume.readNow(0, target, 0, 4096)).toBe(false);
    await volume.read(0, target, 0, 4096);
    expect(volume.readNow(0, target, 0, 4096)).toBe(false);
    expect(volume.writeNow(0, target, 0, 4096)).toBe(true);
    expect(volume.writeNow(1, target, 0, 4000)).toBe(false); // no way to tell whether the page is in memory
  });
});
