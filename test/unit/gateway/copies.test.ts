/** A segment that has copies: its path follows the primary from one to another. The copies are equal, being of one memory. */

import { createServer, type Socket } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { GatewayLab } from '../../support/cluster/gateway-lab.ts';
import { startLoad } from '../../support/cluster/load.ts';
import type { SegmentOf } from '../../support/cluster/records.ts';
import { testRandom } from '../../support/random.ts';
import { eventually } from '../../support/tools.ts';
import { DelayVolume, Gate, seededDelays } from '../../support/volumes/delay-volume.ts';
import { LogVolume } from '../../support/volumes/log-volume.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';

const MIB = 1024 * 1024;

let lab: GatewayLab;
beforeEach(async () => {
  lab = await GatewayLab.start();
});
afterEach(() => lab.stop());

/** Copies of one segment, one at each storage system; the volume `disk` is told of with each change. */
class Pair {
  readonly memory = new MemoryVolume(Buffer.alloc(MIB));
  readonly gates = [new Gate(), new Gate()] as const;
  /** What has come to each copy. */
  readonly logs: readonly [LogVolume, LogVolume];
  readonly #copies: readonly [SegmentOf, SegmentOf];
  #primary: 0 | 1 = 0;
  #epoch = 1;

  constructor() {
    const copies = ([0, 1] as const).map((index) => {
      const slow = new DelayVolume(this.memory, seededDelays(index + 1, 3));
      const log = new LogVolume(new DelayVolume(slow, this.gates[index].delay));
      return { log, copy: lab.real(index, log) };
    }) as [{ log: LogVolume; copy: SegmentOf }, { log: LogVolume; copy: SegmentOf }];
    this.logs = [copies[0].log, copies[1].log];
    this.#copies = [copies[0].copy, copies[1].copy];
    this.#setEpoch(1, undefined);
    this.tell(true);
  }

  get other(): 0 | 1 {
    return this.#primary === 0 ? 1 : 0;
  }

  get primaryGate(): Gate {
    return this.gates[this.#primary];
  }

  /** The record of now. */
  tell(isHandedOver: boolean): void {
    const primary = this.#copies[this.#primary];
    const secondaries = [this.#copies[this.other]];
    lab.volume('disk', [{ ...primary, secondaries, epoch: this.#epoch, isHandedOver }]);
  }

  /** The old primary holds what it is asked, and serves it through once there is another one. */
  switch(): void {
    const before = this.primaryGate;
    before.shut();
    this.#setEpoch(this.#primary, undefined);
    this.change();
    this.#setEpoch(this.#primary, this.#epoch);
    this.tell(true);
    before.open();
  }

  /** Nobody has told the new primary yet, nor anybody else. */
  change(): void {
    this.#primary = this.other;
    this.#epoch += 1;
  }

  begin(): void {
    this.#setEpoch(this.#primary, this.#epoch);
  }

  #setEpoch(index: 0 | 1, epoch: number | undefined): void {
    lab.storage[index].setEpoch(this.#copies[index].realVolume as never, epoch);
  }
}

const writesAt = ({ entries }: LogVolume, offset: number): number =>
  entries.filter((entry) => entry.operation === 'write' && entry.offset === offset).length;

describe('a switch', () => {
  test('there and back, under load: no request fails, nothing is lost', async () => {
    const pair = new Pair();
    const host = await lab.host(await lab.gateway(), 'disk', 2);
    const load = startLoad(host, testRandom('switches under load'));
    for (let round = 0; round < 6; round++) {
      await load.progress();
      pair.switch();
    }
    await load.progress();
    await load.finish();
  });

  test('what the old primary has in hand is answered through it, and not sent again; what comes does not wait', async () => {
    const pair = new Pair();
    const host = await lab.host(await lab.gateway(), 'disk');
    const [older, newer] = [Buffer.alloc(4096, 1), Buffer.alloc(4096, 2)];
    pair.gates[0].shut('write');
    let answered = false;
    const writing = host.write(0, older, 0, 4096, false).then(() => {
      answered = true;
    });
    await eventually('the write has arrived', () => (pair.gates[0].held.length === 1 ? true : undefined));
    pair.change();
    pair.begin();
    pair.tell(true);
    await host.write(8192, newer, 0, 4096, true);
    await eventually('the new primary', () => (writesAt(pair.logs[1], 8192) === 1 ? true : undefined));
    await host.flush();
    expect(answered).toBe(false);
    pair.gates[0].open();
    await writing;
    await host.write(0, newer, 0, 4096, false);
    expect([writesAt(pair.logs[0], 0), writesAt(pair.logs[1], 0)]).toEqual([1, 1]);
    const found = Buffer.alloc(4096);
    await host.read(0, found, 0, 4096);
    expect(found.equals(newer)).toBe(true);
  });

  test('an old primary that hangs after it has handed over is not waited for for ever', async () => {
    const pair = new Pair();
    const host = await lab.host(await lab.gateway('east-gw', { reconnectMs: 1_000 }), 'disk');
    pair.gates[0].shut();
    const writing = host.write(0, Buffer.alloc(4096, 1), 0, 4096, true);
    await eventually('the write has arrived', () => (pair.gates[0].held.length === 1 ? true : undefined));
    pair.change();
    pair.begin();
    pair.tell(true);
    await writing;
    expect(writesAt(pair.logs[1], 0)).toBe(1);
    pair.gates[0].open();
  });

  test('the old primary dies with what it has in hand: that is sent again', async () => {
    const pair = new Pair();
    const host = await lab.host(await lab.gateway(), 'disk');
    pair.gates[0].shut();
    const writing = host.write(0, Buffer.alloc(4096, 1), 0, 4096, true);
    await eventually('the write has arrived', () => (pair.gates[0].held.length === 1 ? true : undefined));
    pair.change();
    pair.begin();
    pair.tell(true);
    await host.write(4096, Buffer.alloc(4096, 1), 0, 4096, true);
    const stopped = lab.storage[0].stop();
    await writing;
    expect(writesAt(pair.logs[1], 0)).toBe(1);
    pair.gates[0].open();
    await stopped;
  });
});

describe('a failover', () => {
  test('of a primary that is gone, under load: no request fails, nothing is lost', async () => {
    const pair = new Pair();
    const host = await lab.host(await lab.gateway(), 'disk', 2);
    const load = startLoad(host, testRandom('failover under load'));
    await load.progress();
    await lab.storage[0].stop();
    pair.change();
    pair.begin();
    pair.tell(false);
    await load.progress();
    await load.finish();
  });

  test('of a primary that hangs, under load: it is not waited for', async () => {
    const pair = new Pair();
    const host = await lab.host(await lab.gateway('east-gw', { reconnectMs: 600_000 }), 'disk', 2);
    const load = startLoad(host, testRandom('failover of a primary that hangs'));
    await load.progress();
    pair.gates[0].shut();
    await eventually('requests that wait', () => (pair.gates[0].held.length > 4 ? true : undefined));
    pair.change();
    pair.begin();
    pair.tell(false);
    await load.progress();
    await load.finish();
    pair.gates[0].open();
  });

  test('of a machine that takes connections and says nothing: attempts there are given up', async () => {
    const pair = new Pair();
    const host = await lab.host(await lab.gateway(), 'disk');
    const { port } = lab.storage[0];
    await lab.storage[0].stop();
    const taken: Socket[] = [];
    const silent = createServer((socket) => taken.push(socket.on('error', () => undefined)));
    await new Promise<void>((resolve) => silent.listen(port, '127.0.0.1', resolve));
    const writing = host.write(0, Buffer.alloc(4096, 1), 0, 4096, true);
    await eventually('an attempt', () => (taken.length > 0 ? true : undefined));
    pair.change();
    pair.begin();
    pair.tell(false);
    await writing;
    expect(writesAt(pair.logs[1], 0)).toBe(1);
    for (const socket of taken) socket.destroy();
    await new Promise((resolve) => silent.close(resolve));
  });

  test('to a copy that has not heard of it yet: it is asked again', async () => {
    const pair = new Pair();
    const host = await lab.host(await lab.gateway(), 'disk');
    await lab.storage[0].stop();
    pair.change();
    pair.tell(false);
    const writing = host.write(0, Buffer.alloc(4096, 1), 0, 4096, true);
    await eventually('refusals', () => (lab.storage[1].refusals > 2 ? true : undefined));
    pair.begin();
    await writing;
  });

  test('and back, while the gateway hears of nothing in between', async () => {
    const pair = new Pair();
    const host = await lab.host(await lab.gateway(), 'disk', 2);
    const load = startLoad(host, testRandom('failover that is heard of late'));
    await load.progress();
    pair.gates[0].shut();
    pair.change();
    pair.change();
    pair.begin();
    pair.gates[0].open();
    await lab.storage[0].raiseEpoch('rv-0000000000000001' as never);
    pair.change();
    pair.begin();
    pair.tell(true);
    await load.progress();
    await load.finish();
  });
});

test('copies that come and go are no change for hosts, whoever is left', async () => {
  const memory = new MemoryVolume(Buffer.alloc(MIB));
  const [a, b, c] = [0, 1, 1].map((index) =>
    lab.real(index as 0 | 1, new DelayVolume(memory, seededDelays(index, 3))),
  ) as [SegmentOf, SegmentOf, SegmentOf];
  lab.volume('disk', [a]);
  const host = await lab.host(await lab.gateway(), 'disk', 2);
  const load = startLoad(host, testRandom('copies come and go'));
  for (const [primary, secondaries, epoch] of [
    [a, [b], 1],
    [b, [a], 2],
    [b, [], 2],
    [b, [c], 2],
    [c, [b], 3],
    [c, [], 3],
  ] as const) {
    await load.progress();
    lab.storage[primary === a ? 0 : 1].setEpoch(primary.realVolume as never, epoch);
    lab.volume('disk', [{ ...primary, secondaries, epoch }]);
  }
  await load.progress();
  await load.finish();
});
