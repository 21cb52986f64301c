/** S4: kill -9 right before each system call with which a real volume is made, resized, changed and deleted. */

import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { RealVolume } from '../../src/storage-system/real-volume.ts';
import { RealVolumeTable } from '../../src/storage-system/real-volume-table.ts';
import { putInOrder, volumeFolder } from '../../src/storage-system/start-check.ts';
import { silentLog } from '../support/log.ts';
import { idOf, KiB } from '../support/storage-system.ts';
import { forEachCall } from '../support/strace.ts';
import {
  projectRoot,
  type RunResult,
  requireTool,
  run,
  type TemporaryFolder,
  temporaryFolder,
} from '../support/tools.ts';

const CHILD = join(projectRoot, 'test/support/real-volumes-child.ts');
const CALLS = ['pwrite64', '/^f(data)?sync', 'ftruncate', '/^unlink'];
const id = idOf(1);

/** What is there after so many steps of the child. */
const outcomes: readonly ({ sizeBytes: number; epoch: number; access: string } | undefined)[] = [
  undefined,
  { sizeBytes: 64 * KiB, epoch: 1, access: 'allowed' },
  { sizeBytes: 64 * KiB, epoch: 1, access: 'allowed' },
  { sizeBytes: 128 * KiB, epoch: 1, access: 'allowed' },
  { sizeBytes: 32 * KiB, epoch: 1, access: 'allowed' },
  { sizeBytes: 32 * KiB, epoch: 2, access: 'prohibited' },
  undefined,
];

let parent: TemporaryFolder;
beforeEach(async () => {
  parent = await temporaryFolder();
});
afterEach(() => parent.remove());

/** A data folder without real volumes. */
function newData(name: string): string {
  const data = parent.file(name);
  mkdirSync(`${data}/volumes`, { recursive: true });
  new RealVolumeTable(`${data}/meta.db`).close();
  return data;
}

/** The child under strace, which looks only at what it does in its data folder. */
function traced(data: string, options: readonly string[]): Promise<RunResult> {
  const database = ['', '-journal', '-wal', '-shm'].map((suffix) => `${data}/meta.db${suffix}`);
  const places = [`${data}/volumes`, `${data}/volumes/${id}.raw`, ...database].flatMap((path) => [
    '-P',
    path,
  ]);
  // strace counts for each thread apart: with one in the pool, the counts are the same in each run.
  const strace = ['-f', '-qq', '-o', `${data}.log`, ...places, ...options, process.execPath, CHILD, data];
  return run(requireTool('strace', 'strace'), strace, { env: { UV_THREADPOOL_SIZE: '1' } });
}

/** Puts the folder in order, as the next start would, and says what there is then. */
async function found(data: string): Promise<RealVolume | undefined> {
  const table = new RealVolumeTable(`${data}/meta.db`);
  const folder = volumeFolder(`${data}/volumes`);
  await putInOrder(table, folder, silentLog);
  const realVolume = table.get(id);
  expect(table.count).toBe(realVolume === undefined ? 0 : 1);
  table.close();
  const files = readdirSync(folder.path);
  expect(files).toEqual(realVolume === undefined ? [] : [`${id}.raw`]);
  return realVolume;
}

test('S4: a real volume is there, whole, as it was answered, or as the step under way would have left it', async () => {
  let [runs, kills] = [0, 0];
  for (const call of CALLS) {
    await forEachCall(async (nth) => {
      const data = newData(`${runs++}`);
      const inject = `inject=${call}:signal=SIGKILL:when=${nth}`;
      const { code, stdout, stderr } = await traced(data, ['-e', `trace=${call}`, '-e', inject]);
      const steps = stdout.split('\n').length - 1;
      const told = `${call} ${nth}, after step ${steps}`;
      expect(stderr, told).toBe('');
      const realVolume = await found(data);
      const { sizeBytes, epoch, access } = realVolume ?? {};
      const state = realVolume && { sizeBytes, epoch, access };
      expect([outcomes[steps], outcomes[steps + 1]], told).toContainEqual(state);
      expect(realVolume?.failure ?? null, told).toBeNull();
      if (realVolume !== undefined) checkBytes(`${data}/volumes/${id}.raw`, realVolume, steps, told);
      if (code === 0) {
        expect(steps, told).toBe(outcomes.length - 1);
        return 'went to its end';
      }
      kills += 1;
      return 'was killed';
    });
  }
  expect(kills).toBeGreaterThan(20);
}, 400_000);

function checkBytes(file: string, { sizeBytes }: RealVolume, steps: number, told: string): void {
  const bytes = readFileSync(file);
  expect(bytes.length, told).toBe(sizeBytes);
  if (steps < 2) return; // nothing has been promised of its bytes
  const data = Math.min(sizeBytes, 64 * KiB);
  expect(bytes.subarray(0, data).equals(Buffer.alloc(data, 7)), told).toBe(true);
  expect(bytes.subarray(data).equals(Buffer.alloc(sizeBytes - data)), told).toBe(true);
}

test('power loss: what a row says of a file has been brought to the disk before the row, and what it hides after it', async () => {
  const data = newData('data');
  const calls = 'trace=pwrite64,fsync,fdatasync,ftruncate,unlink';
  expect((await traced(data, ['-y', '-e', calls])).code).toBe(0);
  const lines = readFileSync(`${data}.log`, 'latin1').split('\n');
  const effects = lines.flatMap((line) => effectOf(line) ?? []);
  const row = ['write meta.db-wal', 'sync meta.db-wal'];
  expect(effects.filter((effect, index) => effect !== effects[index - 1])).toEqual([
    ...['truncate file', 'sync file', 'sync volumes', ...row, ...row], // made; the log gets its header first
    ...['write file', 'sync file'],
    ...['truncate file', 'sync file', ...row], // larger
    ...[...row, 'truncate file'], // smaller
    ...row, // prohibited, with a new epoch
    ...[...row, 'unlink file', 'sync volumes', ...row], // deleted
    'unlink meta.db-wal', // the end
  ]);
});

/** `12 fsync(20</tmp/x/volumes>) = 0` is `sync volumes`; what is done with the metadata beside its log is SQLite's own. */
function effectOf(line: string): string | undefined {
  const [, call, where = ''] = /(write|sync|truncate|unlink)\d*\((.*)/.exec(line) ?? [];
  const name = /\/data\/(volumes\/rv-|volumes|meta\.db-wal)/.exec(where)?.[1];
  if (call === undefined || name === undefined) return undefined;
  return `${call} ${name === 'volumes/rv-' ? 'file' : name}`;
}
