/**
 * Every operation, abandoned before and after every transaction and every request to a storage system, and taken up by a new
 * directory: what was begun is finished or undone, and no real volume is left over.
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { OperationRecord } from '../../../src/control-protocol/catalog.ts';
import { CreateVolume } from '../../../src/control-protocol/directory-api.ts';
import { DirectoryClient } from '../../../src/control-protocol/directory-client.ts';
import { VolumeName } from '../../../src/control-protocol/names.ts';
import type { CatalogStore } from '../../../src/directory/catalog-store.ts';
import { httpPeers, type Peers } from '../../../src/directory/peers.ts';
import { startDirectoryOn } from '../../../src/directory/service.ts';
import { SqliteStore } from '../../../src/directory/sqlite-store.ts';
import { expectNothingLeaked, settled } from '../../support/directory-check.ts';
import { MiB, StorageStandIn } from '../../support/directory-lab.ts';
import { silentLog } from '../../support/log.ts';

const V = VolumeName.parse('v');

interface Scenario {
  readonly name: string;
  /** Size before, on two storage systems; undefined: there is no volume. */
  readonly before: number | undefined;
  readonly ask: (directory: DirectoryClient) => Promise<OperationRecord>;
  /** Whether storage system b refuses to make real volumes. */
  readonly refuses?: boolean;
  /** Sizes that may be there in the end; of an operation that began for certain, the first. */
  readonly after: readonly (number | undefined)[];
}

/** Storage systems have 8 MiB each. */
const SCENARIOS: readonly Scenario[] = [
  {
    name: 'create-volume',
    before: undefined,
    ask: (directory) => directory.createVolume(creation(10 * MiB)),
    after: [10 * MiB, undefined],
  },
  {
    name: 'create-volume that is refused',
    before: undefined,
    ask: (directory) => directory.createVolume(creation(10 * MiB)),
    refuses: true,
    after: [undefined],
  },
  {
    name: 'resize-volume, in place and with a further segment',
    before: 6 * MiB + 512,
    ask: (directory) => directory.resizeVolume(V, { sizeBytes: 14 * MiB }),
    after: [14 * MiB, 6 * MiB + 512],
  },
  {
    name: 'resize-volume, in place and with a further segment, which is refused',
    before: 6 * MiB + 512,
    ask: (directory) => directory.resizeVolume(V, { sizeBytes: 14 * MiB }),
    refuses: true,
    after: [6 * MiB + 512],
  },
  {
    name: 'resize-volume, smaller',
    before: 12 * MiB,
    ask: (directory) => directory.resizeVolume(V, { sizeBytes: 3 * MiB, allowShrink: true }),
    after: [3 * MiB, 12 * MiB],
  },
  {
    name: 'delete-volume',
    before: 12 * MiB,
    ask: (directory) => directory.deleteVolume(V, false),
    after: [undefined, 12 * MiB],
  },
];

function creation(sizeBytes: number): CreateVolume {
  return CreateVolume.parse({ name: V, sizeBytes });
}

/** Lets a number of points pass; at the next, and from then on, nothing answers any more. */
class Fuse {
  passed = 0;
  lit = false;
  #left: number;
  readonly burnt: Promise<void>;
  #burn: () => void = () => undefined;

  constructor(points: number) {
    this.#left = points;
    this.burnt = new Promise((resolve) => {
      this.#burn = resolve;
    });
  }

  async guard<T>(act: () => Promise<T>): Promise<T> {
    await this.#point();
    try {
      return await act();
    } finally {
      await this.#point();
    }
  }

  async #point(): Promise<void> {
    if (!this.lit) return;
    if (this.#left > 0) {
      this.#left -= 1;
      this.passed += 1;
      return;
    }
    this.#burn();
    await new Promise(() => undefined);
  }
}

function guardedStore(store: CatalogStore, fuse: Fuse): CatalogStore {
  return {
    get: (key) => store.get(key),
    range: (prefix) => store.range(prefix),
    watch: (after, signal) => store.watch(after, signal),
    grantLease: (ttlMs) => store.grantLease(ttlMs),
    keepAlive: (lease) => store.keepAlive(lease),
    close: () => store.close(),
    transaction: (transaction) => fuse.guard(() => store.transaction(transaction)),
  };
}

function guardedPeers(fuse: Fuse): Peers {
  return {
    gateway: httpPeers.gateway,
    storage: (record) => {
      const peer = httpPeers.storage(record);
      return {
        realVolume: (id) => peer.realVolume(id),
        makeRealVolume: (id, body) => fuse.guard(() => peer.makeRealVolume(id, body)),
        changeRealVolume: (id, body) => fuse.guard(() => peer.changeRealVolume(id, body)),
        deleteRealVolume: (id, force) => fuse.guard(() => peer.deleteRealVolume(id, force)),
        group: (id, timeoutMs) => peer.group(id, timeoutMs),
        configureGroup: (id, body) => fuse.guard(() => peer.configureGroup(id, body)),
        handOver: (id, body, timeoutMs) => fuse.guard(() => peer.handOver(id, body, timeoutMs)),
      };
    },
  };
}

const LIMITS = {
  retryMs: 200,
  handOverMs: 200,
  serveMs: 400,
  letGoMs: 50,
  backoffMinMs: 5,
  backoffMaxMs: 20,
};

async function start(path: string, fuse: Fuse, storage: readonly StorageStandIn[]) {
  const store = SqliteStore.open(path);
  const service = await startDirectoryOn({
    store: guardedStore(store, fuse),
    peers: guardedPeers(fuse),
    listen: { host: '127.0.0.1', port: 0 },
    log: silentLog,
    limits: LIMITS,
    garbageRetryMs: 20,
    leaseMs: 60_000, // nobody keeps it alive here
  });
  const directory = new DirectoryClient((service.ready.document as { directory: string }).directory);
  for (const each of storage) await each.reportOnce(directory.url);
  return { store, service, directory };
}

/** A directory that has been abandoned answers nothing more. */
function expectCut(error: unknown): void {
  expect(error).toMatchObject({ code: 'unreachable' });
}

/** @returns how many points were passed, which is all of them when the fuse is long enough. */
async function run(scenario: Scenario, points: number): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'volary-resume-'));
  const path = join(folder, 'catalog.db');
  const storage = [new StorageStandIn('a', 8 * MiB), new StorageStandIn('b', 8 * MiB)] as const;
  for (const each of storage) await each.start();
  const fuse = new Fuse(points);
  const first = await start(path, fuse, storage);
  if (scenario.before !== undefined) {
    const { id } = await first.directory.createVolume(creation(scenario.before));
    expect(await first.directory.finished(id)).toMatchObject({ state: 'done' });
  }
  if (scenario.refuses) {
    storage[1].behaviour = ({ method }) => (method === 'PUT' ? { status: 507, code: 'no-space' } : 'serve');
  }
  fuse.lit = true;
  let begun = false;
  const ended = scenario
    .ask(first.directory)
    .then(async ({ id }) => {
      begun = true;
      await first.directory.finished(id);
      await settled(first.directory);
    })
    .catch(expectCut);
  await Promise.race([ended, fuse.burnt]);
  const stopped = first.service.stop();
  if (fuse.passed < points) await stopped; // otherwise it waits for ever for what does not answer
  await ended;
  await first.store.close();

  const second = await start(path, new Fuse(Number.POSITIVE_INFINITY), storage);
  await settled(second.directory);
  await expectNothingLeaked(second.directory, storage);
  const [volume] = await second.directory.volumes();
  expect(begun ? scenario.after.slice(0, 1) : scenario.after).toContain(volume?.size);
  await second.service.stop();
  await second.store.close();
  for (const each of storage) await each.stop();
  rmSync(folder, { recursive: true });
  return fuse.passed;
}

for (const scenario of SCENARIOS) {
  test(`${scenario.name}, abandoned at every point, ends as begun or not at all`, async () => {
    const points = await run(scenario, Number.POSITIVE_INFINITY);
    expect(points).toBeGreaterThanOrEqual(8);
    for (let point = 0; point < points; point += 1) {
      expect(await run(scenario, point), `abandoned at point ${point}`).toBe(point);
    }
  }, 120_000);
}
