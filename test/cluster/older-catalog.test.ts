/** A catalog that is put back from a backup, and knows less of the copies than they do. */

import { cp, rm } from 'node:fs/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { NbdClient } from '../support/client.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { allDuplex, expectEqualFiles, showVolume } from '../support/copies.ts';
import { eventually } from '../support/tools.ts';

let cluster: Cluster;
beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster?.end());

async function withHost<T>(volume: string, work: (host: NbdClient) => Promise<T>): Promise<T> {
  const host = await NbdClient.open(cluster.gateway('east-gw').uri, volume);
  try {
    return await work(host);
  } finally {
    await host.disconnect();
  }
}

/** Stops the directory, and does something to its folder. */
async function withoutDirectory(work: (folder: string, backup: string) => Promise<void>): Promise<void> {
  await cluster.directory.stop();
  await work(cluster.directory.data, `${cluster.directory.data}-backup`);
  await cluster.directory.start();
}

async function eventsOf(kind: string, name: string): Promise<string[]> {
  const events = await cluster.client.events({ since: 0 });
  return events.filter((event) => event.kind === kind && event.subject === name).map(({ text }) => text);
}

test.each([
  ['that the catalog calls a copy', 'east-2'],
  ['that the catalog calls the primary', 'east-1'],
])(
  'a switch that it does not know of: told, shown, and repaired in one go by what is chosen, %s',
  async (_, to) => {
    const name = `db-${to}`;
    await cluster.volary(
      'volume',
      'create',
      name,
      '--size',
      '8MiB',
      '--segment',
      'east-1',
      '--copy',
      'east-2',
    );
    await allDuplex(cluster, name);
    await withoutDirectory((folder, backup) => cp(folder, backup, { recursive: true }));
    await cluster.volary('copy', 'switch', name, 'east-2');
    await cluster.volary('copy', 'switch', name, 'east-1');
    await cluster.volary('copy', 'switch', name, 'east-2');
    const page = Buffer.alloc(4096, 0x5a);
    expect(await withHost(name, (host) => host.write(8192, page))).toBe(0);
    await allDuplex(cluster, name);
    await withoutDirectory(async (folder, backup) => {
      await rm(folder, { recursive: true });
      await cp(backup, folder, { recursive: true });
      await rm(backup, { recursive: true });
    });

    // A primary that hears that its epoch is over makes the next one its own.
    await eventually('both copies have been told of', async () => {
      const isTold = (await eventsOf('copy.newer-epoch', name)).length === 2;
      return isTold && (await cluster.client.status()).health === 'degraded' ? true : undefined;
    });
    expect(await cluster.client.status()).toMatchObject({ volumes: { newerEpoch: [name] } });
    const [text] = await eventsOf('copy.newer-epoch', name);
    expect(text).toContain('older catalog');
    expect(text).toContain(`volary copy failover ${name} STORAGE --force`);
    const shown = (await showVolume(cluster, name)).segments.flatMap(({ copies }) => copies);
    expect(shown.map(({ reason }) => reason)).toEqual(shown.map(() => expect.stringMatching(/epoch [45],/)));
    for (const args of [
      ['failover', name, 'east-2'],
      ['switch', name, 'east-2'],
    ]) {
      const refused = await cluster.tryVolary(['copy', ...args]);
      expect([refused.code, refused.stderr]).toEqual([1, expect.stringContaining('--force')]);
    }

    await cluster.volary('copy', 'failover', name, to, '--force', '--wait');
    const read = await withHost(name, (host) => host.read(8192, 4096));
    expect(read.error).toBe(0);
    expect(read.data.equals(page)).toBe(true);
    const after = await allDuplex(cluster, name);
    expect(after.segments[0]?.epoch).toBeGreaterThan(4);
    expect(await expectEqualFiles(after)).toBe(1);
    expect(await cluster.client.status()).toMatchObject({ health: 'ok', volumes: { newerEpoch: [] } });
    expect(await eventsOf('copy.newer-epoch', name)).toHaveLength(2); // told once
    await cluster.volary('volume', 'delete', name, '--wait');
  },
);
