/** R5: a copy that was suspended gets what it lacks, and not much more. */

import { afterAll, beforeAll, expect, test } from 'vitest';
import { GroupView } from '../../src/control-protocol/copy-groups.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { allDuplex, primaryOf, secondariesOf, showVolume } from '../support/copies.ts';
import { requireTool, runOk } from '../support/tools.ts';

const SIZE = 4 * 2 ** 30;
const BLOCK = 4096;
const CHANGED = Math.ceil(SIZE / BLOCK / 100);

let cluster: Cluster;

beforeAll(async () => {
  cluster = await startCluster();
  const size = ['--size', `${SIZE}`];
  await cluster.volary('volume', 'create', 'db', ...size, '--segment', 'east-1', '--copy', 'east-2');
});
afterAll(() => cluster?.end());

/** What the primary has copied to its secondary since its process began. */
async function copiedBytes(): Promise<number> {
  const [segment] = (await showVolume(cluster, 'db')).segments;
  if (segment === undefined) throw new Error('a volume without segments');
  const { storage, realVolume } = primaryOf(segment);
  const response = await fetch(`${cluster.storage(storage).manage}/real-volumes/${realVolume}/group`);
  const { pairs } = GroupView.parse(await response.json());
  return pairs.reduce((sum, pair) => sum + pair.copiedBytes, 0);
}

/** Blocks of chance, all over the volume. */
async function write(blocks: number, seed: number): Promise<void> {
  await runOk(
    requireTool('fio', 'fio'),
    [
      ...['--name=change', '--ioengine=nbd', `--uri=${cluster.uri('db')}`, '--rw=randwrite', '--bs=4k'],
      ...['--iodepth=16', `--size=${SIZE}`, `--io_size=${blocks * BLOCK}`, `--randseed=${seed}`],
    ],
    { cwd: cluster.folder, timeoutMs: 120_000 },
  );
}

test('1 % of 4 GiB, changed while suspended: at most 1.5 % is copied', async () => {
  await allDuplex(cluster, 'db');
  await write(1000, 1);
  const before = await copiedBytes();
  await cluster.volary('copy', 'suspend', 'db', 'east-2', '--wait');
  await write(CHANGED, 2);
  const [suspended] = (await showVolume(cluster, 'db')).segments.flatMap(secondariesOf);
  expect(suspended).toMatchObject({ pair: 'suspended' });
  expect(suspended?.outOfSyncBytes).toBeGreaterThanOrEqual(CHANGED * BLOCK);

  await cluster.volary('copy', 'resync', 'db', 'east-2', '--wait');
  await cluster.volary('copy', 'wait', 'db', '--pair', 'duplex', '--timeout', '60s');
  const copied = (await copiedBytes()) - before;
  expect(copied).toBeGreaterThanOrEqual(CHANGED * BLOCK);
  expect(copied).toBeLessThanOrEqual(0.015 * SIZE);
  // Most of it is holes, which qemu-img does not read.
  const files = (await allDuplex(cluster, 'db')).segments.flatMap(({ copies }) =>
    copies.map(({ file }) => file ?? ''),
  );
  expect(files).toHaveLength(2);
  const { stdout } = await runOk(requireTool('qemu-img', 'qemu-utils'), [
    'compare',
    '-f',
    'raw',
    '-F',
    'raw',
    ...files,
  ]);
  expect(stdout).toMatch(/^Images are identical/);
});
