/** What every CatalogStore keeps, whatever is behind it. */

import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  type CatalogStore,
  type Commit,
  LeaseError,
  type Put,
} from '../../../src/directory/catalog-store.ts';
import { until } from '../../support/directory-lab.ts';

export interface StoreSubject {
  /** The same catalog, each time. */
  open(): Promise<CatalogStore>;
  /** Takes it away, when all of it is closed. */
  remove(): Promise<void>;
}

export function describeCatalogStore(name: string, makeSubject: () => Promise<StoreSubject>): void {
  describe(`${name} as a CatalogStore`, () => {
    let subject: StoreSubject;
    let store: CatalogStore;

    beforeEach(async () => {
      subject = await makeSubject();
      store = await subject.open();
    });
    afterEach(async () => {
      await store.close();
      await subject.remove();
    });

    function put(...puts: Put[]) {
      return store.transaction({ compare: [], puts, deletes: [] });
    }

    async function keysUnder(prefix: string): Promise<string[]> {
      return (await store.range(prefix)).entries.map(({ key }) => key);
    }

    /** The next commits after a revision. */
    async function commitsAfter(revision: number, count: number): Promise<Commit[]> {
      const commits: Commit[] = [];
      for await (const commit of store.watch(revision, new AbortController().signal)) {
        commits.push(commit);
        if (commits.length === count) break;
      }
      return commits;
    }

    test('1: a transaction raises the revision by one, and gives it to what it has put', async () => {
      const { revision: before } = await store.range('/');
      const first = await put({ key: '/t/a', value: { n: 1 } }, { key: '/t/b', value: { n: 1 } });
      const second = await put({ key: '/t/b', value: { n: 2 } });
      expect([first, second]).toEqual([
        { committed: true, revision: before + 1 },
        { committed: true, revision: before + 2 },
      ]);
      expect(await store.get('/t/a')).toEqual({ key: '/t/a', value: { n: 1 }, revision: before + 1 });
      expect(await store.get('/t/b')).toEqual({ key: '/t/b', value: { n: 2 }, revision: before + 2 });
      expect(await store.get('/t/c')).toBeUndefined();
    });

    test('1: a transaction whose comparisons do not all hold does nothing', async () => {
      const { revision } = await put({ key: '/t/a', value: { n: 1 } });
      for (const compare of [
        [{ key: '/t/a', revision: revision - 1 }],
        [{ key: '/t/a', revision: 0 }],
        [
          { key: '/t/a', revision },
          { key: '/t/b', revision: 1 },
        ],
      ]) {
        const puts = [{ key: '/t/a', value: { n: 2 } }];
        expect(await store.transaction({ compare, puts, deletes: [] })).toEqual({
          committed: false,
          revision,
        });
      }
      expect(await store.get('/t/a')).toMatchObject({ value: { n: 1 }, revision });
      const compare = [
        { key: '/t/a', revision },
        { key: '/t/b', revision: 0 },
      ];
      const done = await store.transaction({
        compare,
        puts: [{ key: '/t/b', value: {} }],
        deletes: ['/t/a'],
      });
      expect(done.committed).toBe(true);
      expect(await keysUnder('/t/')).toEqual(['/t/b']);
    });

    test('1: of transactions that compare the same, one takes place', async () => {
      const { revision } = await put({ key: '/t/a', value: { n: 0 } });
      const results = await Promise.all(
        Array.from({ length: 20 }, (_, n) =>
          store.transaction({
            compare: [{ key: '/t/a', revision }],
            puts: [{ key: '/t/a', value: { n } }],
            deletes: [],
          }),
        ),
      );
      expect(results.filter(({ committed }) => committed)).toHaveLength(1);
    });

    test('1: what changes nothing is no commit', async () => {
      const { revision } = await put({ key: '/t/a', value: {} });
      const result = await store.transaction({ compare: [], puts: [], deletes: ['/t/none'] });
      expect(result).toEqual({ committed: true, revision });
    });

    test('a range has what begins with the prefix, in the order of bytes, and nothing beside it', async () => {
      const names = ['/t/ü', '/t/b', '/t/B', '/t/a/x', '/t/😀', '/t/ﬀ', '/tt/a', '/t'];
      await put(...names.map((key) => ({ key, value: {} })));
      expect(await keysUnder('/t/')).toEqual(['/t/B', '/t/a/x', '/t/b', '/t/ü', '/t/ﬀ', '/t/😀']);
      expect(await keysUnder('/none/')).toEqual([]);
    });

    test('1: everything is there after opening again, and revisions go on', async () => {
      const { revision } = await put({ key: '/t/a', value: { text: 'ü\0"', list: [1, null] } });
      await store.close();
      store = await subject.open();
      expect(await store.get('/t/a')).toEqual({
        key: '/t/a',
        value: { text: 'ü\0"', list: [1, null] },
        revision,
      });
      expect(await put({ key: '/t/a', value: {} })).toEqual({ committed: true, revision: revision + 1 });
    });

    test('2: a watch brings each commit once, in order, whole, from any revision of now on', async () => {
      const { revision } = await store.range('/');
      await put({ key: '/t/a', value: { n: 1 } }, { key: '/t/b', value: { n: 1 } });
      const late = commitsAfter(revision, 4);
      await put({ key: '/t/a', value: { n: 2 } });
      await store.transaction({
        compare: [],
        puts: [{ key: '/t/c', value: {} }],
        deletes: ['/t/b', '/t/none'],
      });
      await store.transaction({ compare: [{ key: '/t/a', revision: 0 }], puts: [], deletes: ['/t/a'] });
      await put({ key: '/t/d', value: {} });
      const commits = (await late).map(({ revision, changes }) => ({
        revision,
        changes: [...changes].sort((a, b) => (a.key < b.key ? -1 : 1)),
      }));
      expect(commits).toEqual([
        {
          revision: revision + 1,
          changes: [
            { key: '/t/a', value: { n: 1 } },
            { key: '/t/b', value: { n: 1 } },
          ],
        },
        { revision: revision + 2, changes: [{ key: '/t/a', value: { n: 2 } }] },
        {
          revision: revision + 3,
          changes: [
            { key: '/t/b', value: null },
            { key: '/t/c', value: {} },
          ],
        },
        { revision: revision + 4, changes: [{ key: '/t/d', value: {} }] },
      ]);
      expect((await commitsAfter(revision + 2, 2)).map((commit) => commit.revision)).toEqual([
        revision + 3,
        revision + 4,
      ]);
    });

    test('2: watches do not disturb one another, and end with their signal or the store', async () => {
      const { revision } = await store.range('/');
      const ends = [new AbortController(), new AbortController()] as const;
      const seen: number[][] = [[], []];
      const watches = ends.map(async ({ signal }, at) => {
        for await (const commit of store.watch(revision, signal)) seen[at]?.push(commit.revision);
      });
      await put({ key: '/t/a', value: {} });
      await until(() => seen.every(({ length }) => length === 1));
      ends[0].abort();
      await watches[0];
      await put({ key: '/t/b', value: {} });
      await until(() => seen[1]?.length === 2);
      await store.close();
      await watches[1];
      expect(seen).toEqual([[revision + 1], [revision + 1, revision + 2]]);
    });

    test('3: keys of a lease go, in one commit, when it is not kept alive', async () => {
      const lease = await store.grantLease(100);
      const { revision } = await put(
        { key: '/p/a', value: {}, lease },
        { key: '/p/b', value: {}, lease },
        { key: '/p/c', value: {} },
      );
      const [commit] = await commitsAfter(revision, 1);
      expect(commit?.changes.map(({ key, value }) => [key, value]).sort()).toEqual([
        ['/p/a', null],
        ['/p/b', null],
      ]);
      expect(await keysUnder('/p/')).toEqual(['/p/c']);
      expect(await store.keepAlive(lease)).toBe(false);
      const again = { compare: [], puts: [{ key: '/p/d', value: {}, lease }], deletes: [] };
      await expect(store.transaction(again)).rejects.toThrow(LeaseError);
      expect(await keysUnder('/p/')).toEqual(['/p/c']);
    });

    test('3: a lease lasts as long as it is kept alive; a key put without it is of no lease', async () => {
      const [kept, left] = [await store.grantLease(1_000), await store.grantLease(1_000)];
      await put({ key: '/p/kept', value: {}, lease: kept }, { key: '/p/left', value: {}, lease: left });
      await put({ key: '/p/free', value: {}, lease: left });
      await put({ key: '/p/free', value: {} });
      while ((await keysUnder('/p/')).includes('/p/left')) {
        expect(await store.keepAlive(kept)).toBe(true);
        await sleep(20);
      }
      expect(await keysUnder('/p/')).toEqual(['/p/free', '/p/kept']);
    });

    test('3: leases go on when the store is opened again, and end', async () => {
      const lease = await store.grantLease(1_000);
      await put({ key: '/p/a', value: {}, lease });
      await store.close();
      store = await subject.open();
      expect(await keysUnder('/p/')).toEqual(['/p/a']);
      expect(await store.keepAlive(lease)).toBe(true);
      await until(async () => (await keysUnder('/p/')).length === 0);
    });
  });
}
