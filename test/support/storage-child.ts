/**
 * A process with one SparseFile, for tests that need another process: to hold the lock, or to run under strace with
 * failures and delays injected into its system calls. `node storage-child.ts MODE PATH` prints one line of JSON.
 */

import { statSync } from 'node:fs';
import { VolumeError } from '../../src/model/errors.ts';
import { openSparseFile } from '../../src/storage/open-sparse-file.ts';

const [mode, path] = process.argv.slice(2);
if (path === undefined) throw new Error('storage-child.ts MODE PATH');
const failures: string[] = [];
const volume = await openSparseFile(path, {
  sizeBytes: 1024 * 1024,
  onFailed: (reason) => failures.push(reason),
});
const page = Buffer.alloc(4096, 1);

async function outcome(operation: () => Promise<unknown> | boolean): Promise<string> {
  try {
    const result = await operation();
    return result === false ? 'not now' : 'done';
  } catch (error) {
    if (error instanceof VolumeError) return error.code;
    throw error;
  }
}

const modes: Record<string, () => Promise<unknown>> = {
  hold: async () => {
    setInterval(() => {}, 60_000); // until it is killed
    return 'ready';
  },
  // Meant for a second fdatasync that fails: the first is this one's.
  'failing-flush': async () => ({
    before: [await outcome(() => volume.write(0, page, 0, 4096, true))],
    failing: [await outcome(() => volume.flush())],
    after: [
      await outcome(() => volume.flush()),
      await outcome(() => volume.write(0, page, 0, 4096, false)),
      await outcome(() => volume.writeNow(0, page, 0, 4096)),
      await outcome(() => volume.trim(0, 4096, false)),
      await outcome(() => volume.writeZeroes(0, 4096, { fua: false, noHole: false, fast: false })),
      await outcome(() => volume.resize(4096)),
    ],
    read: await outcome(() => volume.read(0, page, 0, 4096)),
    state: volume.state,
    failures,
  }),
  // All flushes but the first share one fdatasync, whichever way they are asked for.
  'many-flushes': async () => {
    const flushes = Array.from({ length: 10 }, () => outcome(() => volume.flush()));
    const writes = Array.from({ length: 10 }, (_, i) =>
      outcome(() => volume.write(i * 4096, page, 0, 4096, true)),
    );
    return Promise.all([...flushes, ...writes]);
  },
  // Meant for a first transfer of which the kernel does only a part.
  'partial-transfers': async () => {
    const written = await outcome(() => volume.write(0, page, 0, 4096, false));
    const target = Buffer.alloc(4096, 7);
    const read = await outcome(() => volume.read(0, target, 0, 4096));
    return { written, read, bytes: [target[0], target[999], target[1000], target[4095]] };
  },
  // Meant for a write on the pool that takes long.
  'resize-under-write': async () => {
    const write = outcome(() => volume.write(512 * 1024, page, 0, 4096, false));
    const resize = outcome(() => volume.resize(4096));
    return [await write, await resize, statSync(path).size];
  },
  // Meant for a fallocate that takes long: what is data when it is asked for is a hole in the end.
  'status-under-trim': async () => {
    const trim = outcome(() => volume.trim(0, 65_536, false));
    const [extent] = await volume.blockStatus(0, 65_536, 9);
    return { hole: extent?.hole, trim: await trim, mayHaveHoles: volume.mayHaveHoles(0, 65_536) };
  },
  'slow-writes': async () => [
    await outcome(() => volume.writeNow(0, page, 0, 4096)),
    await outcome(() => volume.writeNow(4096, page, 0, 4096)),
    await outcome(() => volume.write(4096, page, 0, 4096, false)),
  ],
};

const run = modes[mode ?? ''];
if (run === undefined) throw new Error(`no mode ${mode}`);
process.stdout.write(`${JSON.stringify(await run())}\n`);
if (mode !== 'hold') await volume.close();
