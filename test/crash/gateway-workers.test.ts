/** SPEC V3: a gateway of several processes, and the end of one of them. */

import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { placeOf } from '../../src/gateway/workers.ts';
import type { Log } from '../../src/model/log.ts';
import { Option } from '../../src/nbd-server-protocol/constants.ts';
import { outcomeOf } from '../contract/model-run.ts';
import { NbdClient } from '../support/client.ts';
import { GatewayLab, type RunningGateway } from '../support/cluster/gateway-lab.ts';
import { startLoad } from '../support/cluster/load.ts';
import { silentLog } from '../support/log.ts';
import { testRandom } from '../support/random.ts';
import { eventually } from '../support/tools.ts';
import { MemoryVolume } from '../support/volumes/memory-volume.ts';
import {
  ClosedByPeer,
  infoData,
  optionRequest,
  readGreeting,
  readOptionReply,
  u32,
  Wire,
} from '../support/wire.ts';

const MIB = 1024 * 1024;
const WORKERS = 3;

/** Far beyond what a worker needs to be started again. */
const FOR_EVER_MS = 15_000;
/** Long enough for a process that was killed to be gone. */
const DYING_MS = 500;

type Fate = 'served' | 'ended' | 'waits for ever';

/** What becomes of a host that connects, and reads once. */
async function fateOf({ port }: RunningGateway, name: string): Promise<Fate> {
  const patience = new AbortController();
  const late = sleep(FOR_EVER_MS, 'waits for ever' as const, patience).catch(() => 'ended' as const);
  const fate = await Promise.race([late, use(`nbd://127.0.0.1:${port}`, name)]);
  patience.abort();
  return fate;
}

async function use(uri: string, name: string): Promise<Fate> {
  try {
    const client = await NbdClient.open(uri, name);
    await client.read(0, 512);
    client.wire.destroy();
    return 'served';
  } catch (error) {
    if (error instanceof ClosedByPeer) return 'ended';
    throw error;
  }
}

describe('a gateway of several processes', () => {
  let lab: GatewayLab;
  /** Of the workers that are ready, by their places. */
  let pids: Map<number, number>;
  const log: Log = {
    ...silentLog,
    info: (fields, text) => {
      const { worker, pid } = fields as { worker: number; pid: number };
      if (text === 'a worker is ready') pids.set(worker, pid);
    },
  };

  beforeEach(async () => {
    lab = await GatewayLab.start();
    pids = new Map();
  });
  afterEach(() => lab.stop());

  function start(): Promise<RunningGateway> {
    return lab.gateway('east-gw', { workers: WORKERS, log });
  }

  /** A volume name that belongs to that place. */
  function nameAt(place: number, nth = 0): string {
    const names = Array.from({ length: 100 }, (_, index) => `disk-${index}`);
    const name = names.filter((one) => placeOf(one, WORKERS) === place)[nth];
    if (name === undefined) throw new Error(`no name belongs to place ${place}`);
    return name;
  }

  test('volumes of every worker, some of several connections; who asks for what is not there is told so', async () => {
    for (const place of [0, 1, 2]) lab.volume(nameAt(place), [lab.real(0, MIB), lab.real(1, MIB)]);
    const gateway = await start();
    for (const place of [0, 1, 2]) {
      const name = nameAt(place);
      const host = await lab.host(gateway, name, 4);
      const bytes = Buffer.alloc(2 * MIB, place + 1);
      await host.write(0, bytes, 0, bytes.length, true);
      const target = Buffer.alloc(2 * MIB);
      await host.read(0, target, 0, target.length);
      expect(target.equals(bytes)).toBe(true);
      await eventually('all connections', async () => {
        const answer = (await (await fetch(`${gateway.manage}/volumes/${name}/hosts`)).json()) as object;
        return 'connections' in answer && answer.connections === 4 ? true : undefined;
      });
    }
    await expect(lab.host(gateway, 'unknown')).rejects.toMatchObject({ code: 'invalid' });
    const metrics = async (): Promise<string> => (await fetch(`${gateway.manage}/metrics`)).text();
    await eventually('figures of all', async () =>
      (await metrics()).includes('volary_gateway_hosts 12') ? true : undefined,
    );
  });

  test('what is new is known to every worker: a volume, a size, an epoch, an end', async () => {
    const gateway = await start();
    const segment = lab.real(0, MIB);
    const added = lab.real(1, MIB);
    lab.volume(nameAt(1), [segment]);
    const host = await lab.host(gateway, nameAt(1));
    lab.directory.onResize = async (name, sizeBytes) => {
      if (sizeBytes > 2 * MIB) return { code: 'no-space', message: 'no room' };
      lab.volume(name, [segment, added]);
      return null;
    };
    await host.resize(2 * MIB);
    expect(await outcomeOf(host.resize(3 * MIB))).toBe('no-space');
    lab.directory.muted = true; // so that the worker has to ask, through the primary process
    lab.volume(nameAt(1), [{ ...segment, epoch: 2 }, added]);
    await lab.storage[0].raiseEpoch(segment.realVolume as never);
    await host.write(MIB - 2048, Buffer.alloc(4096, 1), 0, 4096, true);
    lab.directory.muted = false;
    lab.directory.removeVolume(nameAt(1));
    await eventually('the host is cut off', () => (host.state === 'reconnecting' ? true : undefined));
  });

  test('kill -9 of one: its hosts come back and miss nothing, those of others do not notice', async () => {
    const names = [nameAt(0), nameAt(0, 1), nameAt(1)] as const;
    for (const name of names) {
      lab.volume(name, [lab.real(0, new MemoryVolume(Buffer.alloc(MIB))), lab.real(1, MIB)]);
    }
    const gateway = await start();
    const random = testRandom('kill -9 of a worker');
    const hosts = [];
    for (const name of names) hosts.push(await lab.host(gateway, name, 2));
    const other = hosts[2];
    if (other === undefined) throw new Error('three hosts');
    const otherWorker = pids.get(1);
    const loads = hosts.map((host) => startLoad(host, random, 8));
    for (let round = 0; round < 3; round++) {
      await Promise.all(loads.map((load) => load.progress()));
      const pid = pids.get(0);
      if (pid === undefined) throw new Error('there is a worker');
      process.kill(pid, 'SIGKILL');
      await eventually('another worker', () => (pids.get(0) !== pid ? true : undefined));
      expect(other.state).toBe('connected');
      expect(other.liveConnections).toBe(2);
    }
    await Promise.all(loads.map((load) => load.progress()));
    await Promise.all(loads.map((load) => load.finish()));
    expect(pids.get(1)).toBe(otherWorker);
  });

  test('kill -9 of one to which connections are being handed over: each is served, or ends', async () => {
    const [CLIENTS, ROUNDS] = [80, 6];
    lab.volume(nameAt(0), [lab.real(0, MIB)]);
    const gateway = await start();
    for (let round = 0; round < ROUNDS; round++) {
      const pid = await eventually('a worker', () => pids.get(0));
      const clients = Array.from({ length: CLIENTS }, () => fateOf(gateway, nameAt(0)));
      await Promise.race(clients);
      pids.delete(0);
      process.kill(pid, 'SIGKILL');
      expect(await Promise.all(clients)).not.toContain('waits for ever');
    }
  });

  test('a question that comes in the turn in which a worker has died does not keep anybody from hearing of that', async () => {
    lab.volume(nameAt(0), [lab.real(0, MIB)]);
    const { port } = await start();
    const pid = await eventually('a worker', () => pids.get(0));
    const wire = await Wire.connect({ host: '127.0.0.1', port });
    await readGreeting(wire);
    wire.send(u32(3), optionRequest(Option.go, infoData(nameAt(0))));
    process.kill(pid, 'SIGKILL');
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, DYING_MS); // of both is heard afterwards, the question first
    expect((await readOptionReply(wire)).option).toBe(Option.go);
    wire.destroy();
  });

  test('of a worker that is being started again nobody says that it has no hosts', async () => {
    lab.volume(nameAt(0), [lab.real(0, MIB)]);
    const gateway = await start();
    await lab.host(gateway, nameAt(0));
    const pid = pids.get(0);
    if (pid === undefined) throw new Error('there is a worker');
    process.kill(pid, 'SIGKILL');
    const answers = new Set<number>();
    await eventually('another worker', async () => {
      const { status } = await fetch(`${gateway.manage}/volumes/${nameAt(0)}/hosts`);
      if (pids.get(0) !== pid) return true;
      answers.add(status);
      return undefined;
    });
    expect([...answers]).toEqual([503]);
  });

  test('a worker that hangs is killed, and its hosts come back', async () => {
    lab.volume(nameAt(0), [lab.real(0, MIB)]);
    const gateway = await start();
    const host = await lab.host(gateway, nameAt(0));
    const pid = pids.get(0);
    if (pid === undefined) throw new Error('there is a worker');
    process.kill(pid, 'SIGSTOP');
    try {
      await host.write(0, Buffer.alloc(4096, 1), 0, 4096, true);
      expect(pids.get(0)).not.toBe(pid);
    } finally {
      if (pids.get(0) === pid) process.kill(pid, 'SIGCONT');
    }
  });

  test('stop ends all processes, and flushes', async () => {
    const gateway = await start();
    lab.volume(nameAt(2), [lab.real(0, MIB)]);
    const host = await lab.host(gateway, nameAt(2));
    await host.write(0, Buffer.alloc(4096, 1), 0, 4096, false);
    await eventually('all workers', () => (pids.size === WORKERS ? true : undefined));
    await gateway.service.stop();
    for (const pid of pids.values()) expect(() => process.kill(pid, 0)).toThrow('ESRCH');
  });
});
