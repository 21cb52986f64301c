/**
 * Every operation, abandoned before and after every transaction and every request to a storage system, and taken up by a new
 * directory: what was begun is finished or undone, and no real volume is left over.
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { OperationRecord, VolumeRecord } from '../../../src/control-protocol/catalog.ts';
import { CreateVolume } from '../../../src/control-protocol/directory-api.ts';
import { DirectoryClient } from '../../../src/control-protocol/directory-client.ts';
import { StorageName, VolumeName } from '../../../src/control-protocol/names.ts';
import type { CatalogStore } from '../../../src/directory/catalog-store.ts';
import { httpPeers, type Peers } from '../../../src/directory/peers.ts';
import { startDirectoryOn } from '../../../src/directory/service.ts';
import { SqliteStore } from '../../../src/directory/sqlite-store.ts';
import { primaryOf, secondariesOf } from '../../../src/replication/group-rules.ts';
import { expectNothingLeaked, expectToldAll, figure, settled } from '../../support/directory-check.ts';
import { MiB, StorageStandIn, until } from '../../support/directory-lab.ts';
import { silentLog } from '../../support/log.ts';

const V = VolumeName.parse('v');

interface Scenario {
  readonly name: string;
  /** The volume that there is before. */
  readonly before: CreateVolume | undefined;
  /** What is done before, when all pairs are in step. */
  readonly first?: (directory: DirectoryClient) => Promise<OperationRecord>;
  readonly ask: (directory: DirectoryClient) => Promise<OperationRecord>;
  /** What storage system b refuses. */
  readonly refuses?: string;
  /** How volumes may be in the end, as `shown` says; of an operation that began for certain, as the first, or as `resumed`. */
  readonly after: readonly (string | undefined)[];
  /** How else an operation may end that a second directory has taken up. */
  readonly resumed?: string;
}

/** Storage systems have 8 MiB each. */
const SCENARIOS: readonly Scenario[] = [
  {
    name: 'create-volume',
    before: undefined,
    ask: (directory) => directory.createVolume(creation(10 * MiB)),
    after: [`${10 * MiB}: a1, b1`, undefined],
  },
  {
    name: 'create-volume that is refused',
    before: undefined,
    ask: (directory) => directory.createVolume(creation(10 * MiB)),
    refuses: 'PUT',
    after: [undefined],
  },
  {
    name: 'resize-volume, in place and with a further segment',
    before: creation(6 * MiB + 512),
    ask: (directory) => directory.resizeVolume(V, { sizeBytes: 14 * MiB }),
    after: [`${14 * MiB}: a1, b1`, `${6 * MiB + 512}: a1`],
  },
  {
    name: 'resize-volume, in place and with a further segment, which is refused',
    before: creation(6 * MiB + 512),
    ask: (directory) => directory.resizeVolume(V, { sizeBytes: 14 * MiB }),
    refuses: 'PUT',
    after: [`${6 * MiB + 512}: a1`],
  },
  {
    name: 'resize-volume, smaller',
    before: creation(12 * MiB),
    ask: (directory) => directory.resizeVolume(V, { sizeBytes: 3 * MiB, allowShrink: true }),
    after: [`${3 * MiB}: a1`, `${12 * MiB}: a1, b1`],
  },
  {
    name: 'delete-volume',
    before: creation(12 * MiB),
    ask: (directory) => directory.deleteVolume(V, false),
    after: [undefined, `${12 * MiB}: a1, b1`],
  },
];

const IN_TWO = [{ storage: 'a', sizeBytes: 2 * MiB }, { storage: 'b' }];
const COPIED = creation(4 * MiB, { segments: IN_TWO, copies: ['c'] });
const B = StorageName.parse('b');
const C = StorageName.parse('c');

/** Volumes of two segments, on a and b, with copies on c. */
const COPY_SCENARIOS: readonly Scenario[] = [
  {
    name: 'create-volume with copies',
    before: undefined,
    ask: (directory) => directory.createVolume(COPIED),
    after: [`${4 * MiB}: a1 c, b1 c`, undefined],
  },
  {
    name: 'resize-volume with copies',
    before: COPIED,
    ask: (directory) => directory.resizeVolume(V, { sizeBytes: 6 * MiB }),
    after: [`${6 * MiB}: a1 c, b1 c`, `${4 * MiB}: a1 c, b1 c`],
  },
  {
    name: 'resize-volume with copies, smaller',
    before: COPIED,
    ask: (directory) => directory.resizeVolume(V, { sizeBytes: 3 * MiB, allowShrink: true }),
    after: [`${3 * MiB}: a1 c, b1 c`, `${4 * MiB}: a1 c, b1 c`],
  },
  {
    name: 'delete-volume with copies',
    before: COPIED,
    ask: (directory) => directory.deleteVolume(V, true),
    after: [undefined, `${4 * MiB}: a1 c, b1 c`],
  },
  {
    name: 'add-copy',
    before: creation(4 * MiB, { segments: IN_TWO }),
    ask: (directory) => directory.addCopy(V, { storage: C }),
    after: [`${4 * MiB}: a1 c, b1 c`, `${4 * MiB}: a1, b1`],
  },
  {
    name: 'add-copy that is refused',
    before: creation(4 * MiB, { segments: [{ storage: 'a', sizeBytes: 2 * MiB }, { storage: 'c' }] }),
    ask: (directory) => directory.addCopy(V, { storage: B }),
    refuses: 'PUT',
    after: [`${4 * MiB}: a1, c1`],
  },
  {
    name: 'remove-copy',
    before: COPIED,
    ask: (directory) => directory.removeCopy(V, C),
    after: [`${4 * MiB}: a1, b1`, `${4 * MiB}: a1 c, b1 c`],
  },
  {
    name: 'suspend-copy',
    before: COPIED,
    ask: (directory) => directory.suspendCopy(V, C),
    after: [`${4 * MiB}: a1 (c), b1 (c)`, `${4 * MiB}: a1 c, b1 c`],
  },
  {
    name: 'resync-copy',
    before: COPIED,
    first: (directory) => directory.suspendCopy(V, C),
    ask: (directory) => directory.resyncCopy(V, C),
    after: [`${4 * MiB}: a1 c, b1 c`, `${4 * MiB}: a1 (c), b1 (c)`],
  },
  {
    name: 'switch-copy',
    before: COPIED,
    ask: (directory) => directory.switchCopy(V, { storage: C }),
    after: [`${4 * MiB}: c2 a, c2 b`, `${4 * MiB}: a1 c, b1 c`],
  },
  {
    name: 'switch-copy that one primary refuses',
    before: COPIED,
    ask: (directory) => directory.switchCopy(V, { storage: C }),
    refuses: 'POST hand-over',
    after: [`${4 * MiB}: a3 c, b1 c`, `${4 * MiB}: a1 c, b1 c`],
    resumed: `${4 * MiB}: a3 c, b3 c`, // it cannot know that nobody has asked b before
  },
  {
    name: 'failover-copy',
    before: COPIED,
    ask: (directory) => directory.failOver(V, { storage: C }),
    after: [`${4 * MiB}: c2 a, c2 b`, `${4 * MiB}: a1 c, b1 c`],
  },
];

/** Size, and of each segment the primary with its epoch, then the secondaries; in parentheses, who is not to follow. */
function shown({ sizeBytes, segments }: VolumeRecord): string {
  const each = segments.map((segment) => {
    const others = secondariesOf(segment).map(({ storage, wanted }) =>
      wanted === 'following' ? storage : `(${storage})`,
    );
    return [`${primaryOf(segment).storage}${segment.epoch}`, ...others].join(' ');
  });
  return `${sizeBytes}: ${each.join(', ')}`;
}

function creation(sizeBytes: number, more: object = {}): CreateVolume {
  return CreateVolume.parse({ name: V, sizeBytes, ...more });
}

/** Lets a number of points pass; at the next, and from then on, nothing answers any more. */
class Fuse {
  passed = 0;
  lit = false;
  isBurnt = false;
  #left: number;
  readonly burnt: Promise<void>;
  #burn: () => void = () => undefined;

  constructor(points: number) {
    this.#left = points;
    this.burnt = new Promise((resolve) => {
      this.#burn = resolve;
    });
  }

  /** What comes at any time, as members being told and their reports: no point, and yet nothing once it is burnt. */
  async pass<T>(act: () => Promise<T>): Promise<T> {
    if (this.isBurnt) await new Promise(() => undefined);
    return act();
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
    this.isBurnt = true;
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
    transaction: (transaction) => {
      const isOfOperation = transaction.puts.some(({ key }) => key.startsWith('/operations/'));
      const act = () => store.transaction(transaction);
      return isOfOperation ? fuse.guard(act) : fuse.pass(act);
    },
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
        configureGroup: (id, body) => fuse.pass(() => peer.configureGroup(id, body)),
        handOver: (id, body, timeoutMs) => fuse.guard(() => peer.handOver(id, body, timeoutMs)),
      };
    },
  };
}

const LIMITS = {
  retryMs: 20_000,
  handOverMs: 20_000,
  serveMs: 20_000,
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
  if (error instanceof TypeError) expect(error.message).toBe('fetch failed');
  else expect(error).toMatchObject({ code: 'unreachable' });
}

/** The volume is there, and its pairs are in step. */
async function prepare(directory: DirectoryClient, { before, first }: Scenario): Promise<void> {
  if (before === undefined) return;
  const { id } = await directory.createVolume(before);
  expect(await directory.finished(id)).toMatchObject({ state: 'done' });
  await until(async () =>
    (await directory.volumeRecord(V)).segments.flatMap(secondariesOf).every(({ pair }) => pair === 'duplex'),
  );
  if (first !== undefined) await directory.finished((await first(directory)).id);
  await until(async () => (await figure(directory, 'members_untold')) === 0);
}

/** @returns how many points were passed, which is all of them when the fuse is long enough. */
async function run(scenario: Scenario, names: readonly string[], points: number): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'volary-resume-'));
  const path = join(folder, 'catalog.db');
  const storage = names.map((name) => new StorageStandIn(name, 8 * MiB));
  for (const each of storage) {
    each.copies = true;
    await each.start();
  }
  const fuse = new Fuse(points);
  const first = await start(path, fuse, storage);
  await prepare(first.directory, scenario);
  for (const each of storage.filter(({ name }) => name === 'b')) {
    each.behaviour = ({ method }) =>
      method === scenario.refuses ? { status: 409, code: 'conflict' } : 'serve';
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
  // After that, what waits for what does not answer waits for ever.
  await Promise.race([first.service.stop(), fuse.burnt]);
  await ended;
  await first.store.close();

  const second = await start(path, new Fuse(Number.POSITIVE_INFINITY), storage);
  await settled(second.directory);
  await expectNothingLeaked(second.directory, storage);
  const [volume] = await second.directory.volumes();
  const found = volume === undefined ? undefined : shown(await second.directory.volumeRecord(V));
  const after = begun ? scenario.after.slice(0, 1) : scenario.after;
  expect(fuse.isBurnt ? [...after, scenario.resumed ?? after[0]] : after).toContain(found);
  await expectToldAll(second.directory, storage);
  await second.service.stop();
  await second.store.close();
  for (const each of storage) await each.stop();
  rmSync(folder, { recursive: true });
  return fuse.passed;
}

for (const [scenario, names] of [
  ...SCENARIOS.map((each) => [each, ['a', 'b']] as const),
  ...COPY_SCENARIOS.map((each) => [each, ['a', 'b', 'c']] as const),
]) {
  test(`${scenario.name}, abandoned at every point, ends as begun or not at all`, async () => {
    const points = await run(scenario, names, Number.POSITIVE_INFINITY);
    expect(points).toBeGreaterThanOrEqual(4);
    for (let point = 0; point < points; point += 1) {
      expect(await run(scenario, names, point), `abandoned at point ${point}`).toBe(point);
    }
  }, 120_000);
}
