import { writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Membership } from '../../../src/gateway/membership.ts';
import type { Information } from '../../../src/gateway/second-information.ts';
import type { Log } from '../../../src/model/log.ts';
import { silentLog } from '../../support/log.ts';
import { type TemporaryFolder, temporaryFolder } from '../../support/tools.ts';

const CLUSTER = '0d3f1f4e-5c83-4a3e-9d43-111111111111';
const OTHER = '0d3f1f4e-5c83-4a3e-9d43-222222222222';

function information(revision: number, clusterId = CLUSTER): Information {
  return { clusterId, revision, volumes: new Map(), storage: new Map() };
}

let folder: TemporaryFolder;
beforeEach(async () => {
  folder = await temporaryFolder();
});
afterEach(() => folder.remove());

test('the first cluster is joined for ever', async () => {
  const first = await Membership.open(folder, silentLog);
  expect(first.clusterId).toBeUndefined();
  await first.join(CLUSTER);
  await first.join(CLUSTER);
  await expect(first.join(OTHER)).rejects.toMatchObject({ code: 'wrong-cluster' });
  const again = await Membership.open(folder, silentLog);
  expect(again.clusterId).toBe(CLUSTER);
  await expect(again.join(OTHER)).rejects.toMatchObject({ code: 'wrong-cluster' });
});

test('of two clusters at the same time only one is joined', async () => {
  const membership = await Membership.open(folder, silentLog);
  const outcomes = await Promise.allSettled([membership.join(CLUSTER), membership.join(OTHER)]);
  expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
});

test('the newest information is there when it has been closed, and opened again', async () => {
  const membership = await Membership.open(folder, silentLog);
  await membership.join(CLUSTER);
  for (let revision = 1; revision <= 20; revision++) membership.keep(information(revision));
  await membership.close();
  const again = await Membership.open(folder, silentLog);
  expect(await again.load()).toEqual(information(20));
});

test('what has changed is saved at once, for whoever is killed then; what follows it closely, a moment later', async () => {
  vi.useFakeTimers({ toFake: ['setTimeout'] }); // a moment later never comes
  try {
    const membership = await Membership.open(folder, silentLog);
    await membership.join(CLUSTER);
    const saved = async (): Promise<number | undefined> => (await membership.load())?.revision;
    for (let revision = 1; revision <= 3; revision++) membership.keep(information(revision));
    while ((await saved()) === undefined) await new Promise((resolve) => setImmediate(resolve));
    expect(await saved()).toBe(1);
    while (vi.getTimerCount() === 0) await new Promise((resolve) => setImmediate(resolve));
    vi.runOnlyPendingTimers();
    while ((await saved()) === 1) await new Promise((resolve) => setImmediate(resolve));
    expect(await saved()).toBe(3);
    await membership.close();
  } finally {
    vi.useRealTimers();
  }
});

test.each([
  ['no JSON', '{"format":1,'],
  ['another format', JSON.stringify({ format: 2, information: {} })],
  [
    'no records',
    JSON.stringify({ format: 1, information: { clusterId: CLUSTER, revision: 1, volumes: [{}] } }),
  ],
  [
    'another cluster',
    JSON.stringify({ format: 1, information: { clusterId: OTHER, revision: 1, volumes: [], storage: [] } }),
  ],
])('information that is of no use is reported, and not used: %s', async (_what, text) => {
  const membership = await Membership.open(folder, silentLog);
  await membership.join(CLUSTER);
  writeFileSync(folder.file('second-information.json'), text);
  const warnings: string[] = [];
  const log: Log = { ...silentLog, warn: (_fields, warning) => warnings.push(warning) };
  const again = await Membership.open(folder, log);
  expect(await again.load()).toBeUndefined();
  expect(warnings).toHaveLength(1);
});

test('a damaged identity of the cluster is an error: it cannot be guessed', async () => {
  for (const text of ['', '{}', '{"format":1,"clusterId":"x"}']) {
    writeFileSync(folder.file('cluster.json'), text);
    await expect(Membership.open(folder, silentLog)).rejects.toMatchObject({ code: 'corrupt-metadata' });
  }
  writeFileSync(folder.file('cluster.json'), JSON.stringify({ format: 2, clusterId: CLUSTER }));
  await expect(Membership.open(folder, silentLog)).rejects.toMatchObject({ code: 'newer-format' });
});
