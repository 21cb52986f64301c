/**
 * N4: a write of a connection that has died never lands behind a newer one. The Linux client sends what a dead
 * connection had in flight again on another one, and goes on from there; an old copy that arrives late would undo
 * writes that were acknowledged since.
 *
 * In every test an OLD write is in flight when its connection dies, a NEW one to the same bytes is acknowledged on
 * another connection, and NEW must be what stays.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { NbdServer } from '../../src/nbd/server.ts';
import { Command } from '../../src/nbd-server-protocol/constants.ts';
import { NbdClient, outcome } from '../support/client.ts';
import { silentLog } from '../support/log.ts';
import { type RunningServer, startServe } from '../support/server.ts';
import { eventually, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';
import { DelayVolume } from '../support/volumes/delay-volume.ts';
import { MemoryVolume } from '../support/volumes/memory-volume.ts';
import type { Call } from '../support/volumes/wrapped-volume.ts';

const BLOCK = 4096;
const MiB = 1024 * 1024;
const OLD = Buffer.alloc(BLOCK, 0x0d);
const NEW = Buffer.alloc(BLOCK, 0xee);
/** Long enough for a server without a fence to do the wrong thing; a right one is right whatever it is. */
const TEMPTATION_MS = 150;

/** Ways in which a client can go. */
const DEATHS = {
  'closed (FIN)': (client: NbdClient) => client.wire.destroy('close'),
  'reset (RST)': (client: NbdClient) => client.wire.destroy('reset'),
  'half closed': (client: NbdClient) => client.wire.halfClose(),
} as const;
type Death = keyof typeof DEATHS;

/** Holds back whatever is not a read, a flush or a write of NEW, until it is let go. */
class OldOnesHeld {
  readonly held: Call[] = [];
  #release: (() => void) | undefined;
  readonly #released = new Promise<void>((resolve) => {
    this.#release = resolve;
  });

  readonly delay = (call: Call): Promise<void> => {
    if (call.operation === 'read' || call.operation === 'flush') return Promise.resolve();
    if (call.data?.[0] === NEW[0]) return Promise.resolve();
    this.held.push(call);
    return this.#released;
  };

  release(): void {
    this.#release?.();
  }
}

describe('N4: writes held in the volume', () => {
  let memory: MemoryVolume;
  let old: OldOnesHeld;
  let server: NbdServer;
  let uri: string;
  let clients: NbdClient[];

  beforeEach(async () => {
    memory = new MemoryVolume(Buffer.alloc(4 * MiB, 0x11));
    old = new OldOnesHeld();
    const nbdExport = { name: 'disk', volume: new DelayVolume(memory, old.delay) };
    server = new NbdServer({
      exports: { list: () => [nbdExport], find: () => nbdExport },
      log: silentLog,
    });
    const address = await server.listen({ host: '127.0.0.1', port: 0 });
    if (!('port' in address)) throw new Error('listens on no port');
    uri = `nbd://127.0.0.1:${address.port}`;
    clients = [];
  });

  afterEach(async () => {
    old.release();
    for (const client of clients) client.wire.destroy();
    await server.stop();
  });

  async function open(): Promise<NbdClient> {
    const client = await NbdClient.open(uri);
    clients.push(client);
    return client;
  }

  function stored(offset: number): Buffer {
    const bytes = Buffer.alloc(BLOCK);
    memory.readNow(offset, bytes, 0, BLOCK);
    return bytes;
  }

  /** Sends NEW, tempts the server to let it overtake, lets the old ones go, and looks at what stays. */
  async function newOneStays(writer: NbdClient, offset = 0): Promise<void> {
    const answer = writer.write(offset, NEW);
    await sleep(TEMPTATION_MS);
    old.release();
    expect(await answer).toBe(0);
    await sleep(TEMPTATION_MS);
    expect(stored(offset).equals(NEW), `found ${stored(offset).subarray(0, 4).toString('hex')}`).toBe(true);
  }

  async function holdsOldWrite(dying: NbdClient, count = 1): Promise<void> {
    for (let index = 0; index < count; index++) void outcome(dying.write(0, OLD));
    await eventually('an old write is held', () => old.held.length > 0 || undefined);
  }

  test.each(Object.keys(DEATHS) as Death[])('%s, then NEW on a new connection', async (death) => {
    const dying = await open();
    await holdsOldWrite(dying);
    DEATHS[death](dying);
    await newOneStays(await open());
  });

  test.each(Object.keys(DEATHS) as Death[])(
    '%s, then NEW at once on a connection that exists',
    async (death) => {
      const dying = await open();
      const other = await open();
      await holdsOldWrite(dying);
      DEATHS[death](dying);
      await newOneStays(other);
    },
  );

  // Here the server does not even read from the dying connection any more when it dies.
  test.each(Object.keys(DEATHS) as Death[])(
    '%s with more in flight than the server takes, then NEW',
    async (death) => {
      const dying = await open();
      const other = await open();
      await holdsOldWrite(dying, 300);
      await sleep(TEMPTATION_MS);
      expect(old.held.length).toBeLessThan(300);
      DEATHS[death](dying);
      await newOneStays(other);
    },
  );

  test.each([
    ['TRIM', Command.trim],
    ['WRITE_ZEROES', Command.writeZeroes],
  ] as const)('an old %s counts as well, and so does a part of it', async (_name, command) => {
    const dying = await open();
    void outcome(dying.request(command, 0, MiB).then(({ error }) => error));
    await eventually('it is held', () => old.held.length > 0 || undefined);
    dying.wire.destroy('reset');
    await newOneStays(await open(), MiB - BLOCK);
  });

  test('a read on a new connection does not see the state before an old write that lands later', async () => {
    const dying = await open();
    await holdsOldWrite(dying);
    dying.wire.destroy('reset');
    const reader = await open();
    const first = reader.read(0, BLOCK);
    await sleep(TEMPTATION_MS);
    old.release();
    const seen = (await first).data;
    const later = (await reader.read(0, BLOCK)).data;
    expect(later.equals(seen), 'two reads, nothing written in between, two answers').toBe(true);
  });

  test('what does not overlap does not wait', async () => {
    const dying = await open();
    await holdsOldWrite(dying);
    dying.wire.destroy('reset');
    const other = await open();
    expect(await other.write(BLOCK, NEW)).toBe(0);
    expect((await other.read(2 * BLOCK, BLOCK)).error).toBe(0);
    expect(stored(BLOCK).equals(NEW)).toBe(true);
  });

  test('two living connections do not wait for each other', async () => {
    const slow = await open();
    const other = await open();
    await holdsOldWrite(slow);
    expect(await other.write(0, NEW)).toBe(0);
  });
});

describe('N4: requests that a frozen server has not read yet', () => {
  let folder: TemporaryFolder;
  let server: RunningServer;

  beforeEach(async () => {
    folder = await temporaryFolder();
    server = await startServe([
      ...[folder.file('disk.img'), '--size', '8MiB'],
      ...['--listen', 'nbd://127.0.0.1:0', '--listen', `nbd+unix:///?socket=${folder.file('sock')}`],
    ]);
  });

  afterEach(async () => {
    server.process.kill('SIGCONT');
    await server.kill();
    await folder.remove();
  });

  // Over TCP only as many as fit into the server's receive buffer: a FIN behind what does not fit is not sent.
  test.each([
    ['TCP', 'close', 16],
    ['TCP', 'reset', 256],
    ['unix', 'close', 256],
  ] as const)('%s %s while frozen, NEW on a connection that exists', async (transport, how, most) => {
    const uri = server.uris[transport === 'TCP' ? 0 : 1] as string;
    const other = await NbdClient.open(uri);
    for (let count = 1; count <= most; count *= 4) {
      const dying = await NbdClient.open(uri);
      server.process.kill('SIGSTOP');
      await sleep(20);
      // The server will look at `other` first: it has something to read there first.
      const first = other.read(0, BLOCK);
      await sleep(5);
      for (let index = 0; index < count; index++) void outcome(dying.write(0, OLD));
      await sleep(20);
      dying.wire.destroy(how);
      await sleep(5);
      const answer = other.write(0, NEW);
      server.process.kill('SIGCONT');
      await first;
      expect(await answer).toBe(0);
      await sleep(TEMPTATION_MS);
      const { data } = await other.read(0, BLOCK);
      expect(data.equals(NEW), `${count} old writes: found ${data.subarray(0, 4).toString('hex')}`).toBe(
        true,
      );
      expect(await other.writeZeroes(0, BLOCK)).toBe(0);
    }
    await other.disconnect();
  });
});
