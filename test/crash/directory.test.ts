/** kill -9 of the directory at random moments, under requests, in front of storage systems that refuse and do not answer. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import type { OperationRecord } from '../../src/control-protocol/catalog.ts';
import { CreateVolume } from '../../src/control-protocol/directory-api.ts';
import { DirectoryClient } from '../../src/control-protocol/directory-client.ts';
import { type OperationId, StorageName, VolumeName } from '../../src/control-protocol/names.ts';
import { ControlError } from '../../src/model/errors.ts';
import { expectNothingLeaked, expectToldAll, settled } from '../support/directory-check.ts';
import { type Behaviour, MiB, StorageStandIn } from '../support/directory-lab.ts';
import { type SeededRandom, testRandom } from '../support/random.ts';
import { startVolary, type VolaryProcess } from '../support/volary-process.ts';

const LIVES = 15;
const LIFE_MS_MAX = 250;
const PLACES = ['a', 'b', 'c'].map((name) => StorageName.parse(name));
const NAMES = ['v0', 'v1', 'v2', 'v3', 'v4', 'v5', 'v6', 'v7'].map((name) => VolumeName.parse(name));

function behaviourOf(random: SeededRandom, growth: number): Behaviour {
  const dice = random.below(100);
  if (dice < 5 && growth > 0) return { status: 507, code: 'no-space' };
  if (dice < 12) return 'cut';
  return dice < 20 ? 'cut-after' : 'serve';
}

function ask(directory: DirectoryClient, random: SeededRandom): Promise<OperationRecord> {
  const name = NAMES[random.below(NAMES.length)] as VolumeName;
  const sizeBytes = 512 * (1 + random.below(30 * 2048));
  const dice = random.below(20);
  if (dice < 3) return directory.createVolume(CreateVolume.parse({ name, sizeBytes }));
  if (dice < 6) {
    const copies = [PLACES[random.below(PLACES.length)]];
    return directory.createVolume(
      CreateVolume.parse({ name, sizeBytes: 512 * Math.ceil(sizeBytes / 2048), copies }),
    );
  }
  if (dice < 9) return directory.resizeVolume(name, { sizeBytes, allowShrink: true });
  if (dice < 11) return directory.deleteVolume(name, false);
  return askForCopy(directory, random, name);
}

function askForCopy(
  directory: DirectoryClient,
  random: SeededRandom,
  name: VolumeName,
): Promise<OperationRecord> {
  const storage = PLACES[random.below(PLACES.length)] as StorageName;
  const dice = random.below(10);
  if (dice < 3) return directory.addCopy(name, { storage });
  if (dice < 4) return directory.removeCopy(name, storage);
  if (dice < 5) return directory.suspendCopy(name, storage);
  if (dice < 6) return directory.resyncCopy(name, storage);
  if (dice < 8) return directory.switchCopy(name, { storage });
  return directory.failOver(name, { storage, force: dice < 9 });
}

/** Asks for one thing after the other, until the directory is away. */
async function askOn(directory: DirectoryClient, random: SeededRandom, begun: OperationId[]): Promise<void> {
  for (;;) {
    try {
      const { id } = await ask(directory, random);
      begun.push(id);
      await directory.finished(id);
    } catch (error) {
      if (!(error instanceof ControlError)) throw error;
      if (error.code === 'unreachable') return;
    }
  }
}

function runDirectory(folder: string, url: string): Promise<VolaryProcess> {
  return startVolary(['run', 'directory', '--data', folder, '--listen', url]);
}

test('killed at random moments, it finishes or undoes all that it has begun, and forgets nothing', async () => {
  const random = testRandom('directory, kill -9');
  const folder = mkdtempSync(join(tmpdir(), 'volary-directory-kill-'));
  const storage = PLACES.map((name) => new StorageStandIn(name, 40 * MiB));
  const begun: OperationId[] = [];
  let life = await runDirectory(folder, 'http://127.0.0.1:0');
  onTestFinished(async () => {
    await life.kill();
    for (const each of storage) await each.stop();
    rmSync(folder, { recursive: true });
  });
  const directory = new DirectoryClient(String(life.ready.directory));
  const { url } = directory;
  for (const each of storage) {
    each.copies = true;
    await each.start();
    await each.report(() => url);
    each.behaviour = async ({ growth }) => {
      await sleep(random.below(4));
      return behaviourOf(random, growth);
    };
  }
  for (let lives = 0; lives < LIVES; lives += 1) {
    const asking = [1, 2, 3].map(() => askOn(directory, random, begun));
    await sleep(random.below(LIFE_MS_MAX));
    await life.kill();
    await Promise.all(asking);
    life = await runDirectory(folder, url);
  }
  for (const each of storage) each.behaviour = () => 'serve';
  await settled(directory);
  await expectNothingLeaked(directory, storage);
  await expectToldAll(directory, storage);
  expect(begun.length).toBeGreaterThan(0);
  for (const id of begun) expect(['done', 'failed']).toContain((await directory.operation(id)).state);
  const events = await directory.events({ since: 0, limit: 10_000 });
  expect(events.map(({ id }) => id)).toEqual(events.map((_, at) => at + 1));
  expect(await life.stop()).toEqual({ code: 0, signal: null });
});
