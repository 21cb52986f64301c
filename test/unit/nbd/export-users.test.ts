/** Who uses an export: what its owner is told, and connections that are taken away. */

import { describe, expect, test } from 'vitest';
import type { Volume } from '../../../src/model/volume.ts';
import { type NbdExport, NbdServer } from '../../../src/nbd/server.ts';
import { Command, Option, OptionReply } from '../../../src/nbd-server-protocol/constants.ts';
import { silentLog } from '../../support/log.ts';
import { Session } from '../../support/nbd-session.ts';
import { eventually } from '../../support/tools.ts';
import { DelayVolume, Gate } from '../../support/volumes/delay-volume.ts';
import { LogVolume } from '../../support/volumes/log-volume.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';
import {
  type Address,
  infoData,
  optionRequest,
  readGreeting,
  readOptionReply,
  u32,
  Wire,
} from '../../support/wire.ts';

const BLOCK = Buffer.alloc(4096, 7);

/** A server of volumes that are opened when they are asked for and closed when they have ended. */
class Owner implements AsyncDisposable {
  readonly gate = new Gate();
  readonly open = new Map<string, Volume>();
  readonly logs: LogVolume[] = [];
  readonly events: string[] = [];
  readonly server: NbdServer;
  address: Address = { path: '' };
  answer: () => Promise<void> = () => Promise.resolve();

  constructor() {
    const find = async (name: string): Promise<NbdExport> => {
      await this.answer();
      return this.#export(name);
    };
    this.server = new NbdServer({ exports: { list: () => [], find }, log: silentLog, drainMs: 300 });
  }

  async start(): Promise<this> {
    this.address = await this.server.listen({ host: '127.0.0.1', port: 0 });
    return this;
  }

  session(exportName = 'a'): Promise<Session> {
    return Session.open(this.address, { exportName });
  }

  volume(name = 'a'): Volume {
    const volume = this.open.get(name);
    if (volume === undefined) throw new Error(`${name} is not open`);
    return volume;
  }

  #export(name: string): NbdExport {
    let volume = this.open.get(name);
    if (volume === undefined) {
      const log = new LogVolume(new DelayVolume(new MemoryVolume(Buffer.alloc(65_536)), this.gate.delay));
      this.logs.push(log);
      volume = log;
      this.open.set(name, volume);
    }
    const users = {
      begun: () => void this.events.push(`${name} begun`),
      ended: () => {
        this.events.push(`${name} ended`);
        this.open.delete(name);
        void volume.close();
      },
    };
    return { name, volume, users };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.gate.open();
    await this.server.stop();
  }
}

const isOver = (owner: Owner, count = 1) =>
  eventually('the end', () => owner.events.filter((e) => e.endsWith('ended')).length === count || undefined);

describe('begun and ended', () => {
  test('once for several connections, and again for the next ones', async () => {
    await using owner = await new Owner().start();
    const [first, second] = [await owner.session(), await owner.session()];
    expect(owner.server.connectionsOf(owner.volume())).toBe(2);
    first.send({ type: Command.disconnect });
    await first.wire.readToEnd();
    first.wire.destroy();
    expect((await second.write(0, BLOCK)).error).toBe(0);
    second.wire.destroy();
    await isOver(owner);
    const third = await owner.session();
    expect((await third.read(0, 4096)).error).toBe(0);
    third.wire.destroy('reset');
    await isOver(owner, 2);
    expect(owner.events).toEqual(['a begun', 'a ended', 'a begun', 'a ended']);
  });

  test('an export that is only asked about is not used', async () => {
    await using owner = await new Owner().start();
    const wire = await Wire.connect(owner.address);
    await readGreeting(wire);
    wire.send(u32(3), optionRequest(Option.info, infoData('a')), optionRequest(Option.abort));
    expect((await readOptionReply(wire)).type).toBe(OptionReply.info);
    await wire.readToEnd();
    wire.destroy();
    await owner.server.stop();
    expect(owner.events).toEqual([]);
    expect(owner.logs[0]?.entries).toEqual([]); // nor flushed
  });

  test.each(['close', 'reset'] as const)('not before orphaned writes have finished (%s)', async (how) => {
    await using owner = await new Owner().start();
    const session = await owner.session();
    const volume = owner.volume();
    owner.gate.shut('write');
    session.send(
      { type: Command.write, offset: 0, payload: BLOCK },
      { type: Command.write, offset: 8192, payload: BLOCK },
    );
    await eventually('the writes', () => owner.gate.held.length === 2 || undefined);
    session.wire.destroy(how);
    // While they are under way another client may come, and finds the same volume.
    const other = await owner.session();
    other.send({ type: Command.disconnect });
    await other.wire.readToEnd();
    other.wire.destroy();
    owner.gate.letOneGo();
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(owner.events).toEqual(['a begun']);
    expect(owner.volume()).toBe(volume);
    owner.gate.open();
    await isOver(owner);
    expect(owner.logs[0]?.entries.map(({ outcome }) => outcome)).toEqual(['done', 'done']);
  });

  test('the last one leaves while another finds the volume: it is not closed under the new one', async () => {
    await using owner = await new Owner().start();
    for (let round = 0; round < 20; round++) {
      const leaving = await owner.session();
      const coming = owner.session();
      // At all places between the look-up and the start of the transmission.
      for (let turn = 0; turn < round % 10; turn++) await new Promise((resolve) => setImmediate(resolve));
      leaving.wire.destroy();
      const session = await coming;
      expect((await session.write(0, BLOCK)).error).toBe(0);
      session.wire.destroy();
      await eventually('the end', () => owner.open.size === 0 || undefined);
    }
    for (const [index, event] of owner.events.entries())
      expect(event).toBe(index % 2 === 0 ? 'a begun' : 'a ended');
  });

  test('the last write ends while the volume that has been found is on its way to the server', async () => {
    await using owner = await new Owner().start();
    for (let hops = 0; hops < 24; hops++) {
      const dying = await owner.session();
      owner.gate.shut('write');
      dying.send({ type: Command.write, offset: 0, payload: BLOCK });
      await eventually('the write', () => owner.gate.held.length === 1 || undefined);
      dying.wire.destroy('reset');
      await eventually('the death', () => owner.server.connectionsOf(owner.volume()) === 0 || undefined);
      let find: (() => void) | undefined;
      owner.answer = () => new Promise((resolve) => (find = resolve));
      const coming = owner.session();
      await eventually('the look-up', () => find !== undefined || undefined);
      owner.answer = () => Promise.resolve();
      owner.gate.open();
      for (let hop = 0; hop < hops; hop++) await Promise.resolve();
      find?.();
      const session = await coming;
      expect((await session.read(0, 4096)).error, `after ${hops} hops`).toBe(0);
      session.wire.destroy();
      await eventually('the end', () => owner.open.size === 0 || undefined);
    }
  });

  test('hundreds of volumes come and go, and the server keeps none of them', async () => {
    await using owner = await new Owner().start();
    for (let index = 0; index < 200; index++) {
      const session = await owner.session(`volume ${index}`);
      expect((await session.write(0, BLOCK)).error).toBe(0);
      session.wire.destroy();
    }
    await isOver(owner, 200);
    await owner.server.stop();
    // What stop knows, it flushes.
    const flushes = owner.logs.flatMap(({ entries }) =>
      entries.filter(({ operation }) => operation === 'flush'),
    );
    expect([owner.logs.length, flushes.length]).toEqual([200, 0]);
  });
});

describe('stop', () => {
  test('flushes what is in use, and then it has ended', async () => {
    const owner = await new Owner().start();
    const session = await owner.session();
    expect((await session.write(0, BLOCK)).error).toBe(0);
    const stopping = owner.server.stop().then(() => owner.events.push('stopped'));
    await session.wire.readToEnd();
    session.wire.destroy();
    await stopping;
    expect(owner.logs[0]?.entries.map(({ operation, outcome }) => [operation, outcome])).toEqual([
      ['write', 'done'],
      ['flush', 'done'],
    ]);
    expect(owner.events).toEqual(['a begun', 'a ended', 'stopped']);
  });

  test('with a write that never ends: the export ends when it does', async () => {
    const owner = await new Owner().start();
    const session = await owner.session();
    owner.gate.shut('write');
    session.send({ type: Command.write, offset: 0, payload: BLOCK });
    await eventually('the write', () => owner.gate.held.length === 1 || undefined);
    await owner.server.stop();
    expect(owner.events).toEqual(['a begun']);
    owner.gate.open();
    await isOver(owner);
    session.wire.destroy();
  });

  test('without users, what was used is flushed by stop', async () => {
    const volume = new LogVolume(new MemoryVolume(Buffer.alloc(65_536)));
    const exports = { list: () => [], find: () => ({ name: 'a', volume }) };
    const server = new NbdServer({ exports, log: silentLog });
    const address = await server.listen({ host: '127.0.0.1', port: 0 });
    const session = await Session.open(address);
    await session.write(0, BLOCK);
    session.wire.destroy();
    await eventually('the end', () => server.connectionsOf(volume) === 0 || undefined);
    await new Promise((resolve) => setTimeout(resolve, 20));
    await server.stop();
    expect(volume.entries.map(({ operation }) => operation)).toEqual(['write', 'flush']);
  });
});

describe('disconnect', () => {
  test('closes all connections of one volume, and of no other', async () => {
    await using owner = await new Owner().start();
    const sessions = [await owner.session(), await owner.session(), await owner.session()];
    const other = await owner.session('b');
    const volume = owner.volume();
    expect(owner.server.connectionsOf(volume)).toBe(3);
    await owner.server.disconnect(volume, 'deleted');
    expect([owner.server.connectionsOf(volume), owner.server.connectionsOf(owner.volume('b'))]).toEqual([
      0, 1,
    ]);
    expect(owner.events).toEqual(['a begun', 'b begun', 'a ended']);
    for (const session of sessions) await session.wire.readToEnd();
    expect((await other.read(0, 4096)).error).toBe(0);
    other.wire.destroy();
  });

  test('resolves when the writes under way have finished, those of earlier connections too', async () => {
    await using owner = await new Owner().start();
    const [earlier, session] = [await owner.session(), await owner.session()];
    owner.gate.shut('write', 'read');
    earlier.send({ type: Command.write, offset: 0, payload: BLOCK });
    session.send(
      { type: Command.write, offset: 8192, payload: BLOCK },
      { type: Command.read, offset: 16_384, length: 4096 },
    );
    await eventually('all requests', () => owner.gate.held.length === 3 || undefined);
    earlier.wire.destroy('reset');
    const volume = owner.volume();
    await eventually('one has left', () => owner.server.connectionsOf(volume) < 2 || undefined);
    const gone = owner.server.disconnect(volume, 'deleted').then(() => owner.events.push('gone'));
    await session.wire.readToEnd(); // the client is told at once
    for (let left = 3; left > 0; left--) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      expect(owner.events).toEqual(['a begun']);
      owner.gate.letOneGo();
    }
    await gone;
    expect(owner.events).toEqual(['a begun', 'a ended', 'gone']);
    const entries = owner.logs[0]?.entries ?? [];
    expect(entries.map(({ operation, outcome }) => `${operation} ${outcome}`)).toEqual([
      'write done',
      'write done',
      'read done',
    ]);
  });

  test('nothing that was received and not begun is carried out afterwards', async () => {
    await using owner = await new Owner().start();
    const session = await owner.session();
    owner.gate.shut('write');
    // More than a connection may have under way: the rest waits in the server.
    for (let index = 0; index < 400; index++) {
      session.send({ type: Command.write, offset: (index % 16) * 4096, payload: BLOCK });
    }
    await eventually('a full connection', () => owner.gate.held.length === 256 || undefined);
    const gone = owner.server.disconnect(owner.volume(), 'deleted');
    owner.gate.open();
    await gone;
    expect(owner.logs[0]?.entries).toHaveLength(256);
  });

  test('of a volume that nobody uses, or that is not known, is nothing', async () => {
    await using owner = await new Owner().start();
    await owner.server.disconnect(new MemoryVolume(Buffer.alloc(512)), 'deleted');
    expect(owner.server.connectionsOf(new MemoryVolume(Buffer.alloc(512)))).toBe(0);
  });

  test('a new connection may come meanwhile, and is left alone', async () => {
    await using owner = await new Owner().start();
    const session = await owner.session();
    owner.gate.shut('write');
    session.send({ type: Command.write, offset: 0, payload: BLOCK });
    await eventually('the write', () => owner.gate.held.length === 1 || undefined);
    const volume = owner.volume();
    const gone = owner.server.disconnect(volume, 'moved');
    const next = await owner.session();
    owner.gate.open();
    await gone;
    expect(owner.server.connectionsOf(volume)).toBe(1);
    expect((await next.write(0, BLOCK)).error).toBe(0);
    expect(owner.events).toEqual(['a begun']);
    next.wire.destroy();
  });
});
