/**
 * What a primary that has handed over still has in hand goes through it to the new one, and its gateway may have sent it again by then. Here with the
 * real paths of gateways, and the real storage systems, over real connections; only the way between the storage systems can be made to stall.
 */

import { afterEach, expect, test } from 'vitest';
import { StorageName } from '../../src/control-protocol/names.ts';
import { formatRealVolumeExport } from '../../src/control-protocol/real-volume-export.ts';
import { Path } from '../../src/gateway/path.ts';
import type { PlannedSegment } from '../../src/gateway/second-information.ts';
import type { SocketAddress } from '../../src/model/socket-address.ts';
import { openRemoteVolume, type RemoteVolume } from '../../src/nbd-client/remote-volume.ts';
import { silentLog } from '../support/log.ts';
import { allDuplex, type Copy, type LabGroup, MemberLab } from '../support/member-lab.ts';
import { SlowLink } from '../support/slow-link.ts';
import { epochOf, KEY, MiB } from '../support/storage-system.ts';
import { eventually } from '../support/tools.ts';
import { outcomeOf } from './model-run.ts';

const SIZE = MiB;
const FAST = 1e9;
/** A gateway waits half of it for what a primary of before has in hand. */
const RECONNECT_MS = 2_000;
const LONG_MS = 600_000;

const undo: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});

const page = (value: number): Buffer => Buffer.alloc(4096, value);
const write = (volume: RemoteVolume, value: number) => volume.write(0, page(value), 0, 4096, false);

interface Scene {
  readonly lab: MemberLab;
  readonly made: LabGroup;
  /** The ways to each storage system from the others. */
  readonly between: Map<string, SlowLink>;
  /** The ways to each storage system from gateways. */
  readonly outside: Map<string, SlowLink & { address: SocketAddress }>;
  copy(n: number): Copy;
  segment(n: number, epoch: number): PlannedSegment;
  path(segment: PlannedSegment, reconnectMs?: number): Promise<{ path: Path; volume: RemoteVolume }>;
  /** The first page, as the primary has it. */
  found(n: number, epoch: number): Promise<number | undefined>;
}

async function newScene(systems = 2): Promise<Scene> {
  const between = new Map<string, SlowLink>();
  const outside = new Map<string, SlowLink & { address: SocketAddress }>();
  const lab = await MemberLab.start({
    systems,
    nbdAt: async (system, address) => {
      const [inner, outer] = [await SlowLink.start(address, FAST), await SlowLink.start(address, FAST)];
      undo.unshift(
        () => inner[Symbol.asyncDispose](),
        () => outer[Symbol.asyncDispose](),
      );
      between.set(system, inner);
      outside.set(system, outer);
      return inner.address;
    },
  });
  undo.push(() => lab[Symbol.asyncDispose]());
  const made = await lab.makeGroup(SIZE);
  await allDuplex(made);
  const copy = (n: number): Copy => {
    const found = made.copies[n];
    if (found === undefined) throw new Error(`there is no copy ${n}`);
    return found;
  };
  const segment = (n: number, epoch: number): PlannedSegment => {
    const { storage, realVolume } = copy(n);
    const address = outside.get(storage)?.address;
    if (address === undefined) throw new Error(`there is no ${storage}`);
    const name = (manner: 'ordinary' | 'alone') =>
      formatRealVolumeExport(realVolume, epochOf(epoch), KEY, manner);
    return {
      ...{ offset: 0, length: SIZE, storage: StorageName.parse(storage), realVolume, realOffset: 0 },
      ...{ epoch: epochOf(epoch), isHandedOver: true },
      copies: made.copies.map((each) => each.realVolume),
      target: { address, exportName: name('ordinary'), aloneName: name('alone') },
    };
  };
  return {
    ...{ lab, made, between, outside, copy, segment },
    path: async (at, reconnectMs = RECONNECT_MS) => {
      const path = new Path(at, { connections: 1, reconnectMs, log: silentLog, onRefused: () => undefined });
      undo.push(() => path.close());
      return { path, volume: await path.opened };
    },
    found: async (n, epoch) => {
      const { storage, realVolume } = copy(n);
      const port = Number(new URL(lab.system(storage).uri.replace('nbd:', 'http:')).port);
      const exportName = formatRealVolumeExport(realVolume, epochOf(epoch), KEY);
      const volume = await openRemoteVolume({
        ...{
          address: { host: '127.0.0.1', port },
          exportName,
          log: silentLog,
          openMs: 5_000,
          connections: 1,
        },
      });
      const target = Buffer.alloc(4096);
      await volume.read(0, target, 0, 4096);
      await volume.close();
      return target.every((byte) => byte === target[0]) ? target[0] : undefined;
    },
  };
}

/** A gateway has a write in the passage from the first copy to the second, where nothing arrives for now. */
async function writeInPassage(scene: Scene, reconnectMs?: number) {
  const { made, between, copy, segment } = scene;
  const gateway = await scene.path(segment(0, 1), reconnectMs);
  await made.group.switchTo(copy(1).realVolume);
  await write(gateway.volume, 1); // the passage is there
  const way = between.get(copy(1).storage) as SlowLink;
  expect(way.bytes).toBeGreaterThan(4096);
  way.silence();
  const { receivedBytes } = way;
  const older = write(gateway.volume, 2);
  await eventually('it is in the passage', () =>
    way.receivedBytes >= receivedBytes + 4096 ? true : undefined,
  );
  return { ...gateway, way, older };
}

/** All that was on its way has arrived, and is refused or done. */
async function arrived(way: SlowLink): Promise<void> {
  const { bytes } = way;
  way.speak();
  await eventually('what was on its way arrives', () => (way.bytes >= bytes + 4096 ? true : undefined));
  await new Promise((resolve) => setTimeout(resolve, 200)); // as long as it may take to be written, were it not refused
}

test('R7 without trouble: what the old primary has in hand is answered through it, and the passage stays', async () => {
  const scene = await newScene();
  const other = await scene.path(scene.segment(0, 1));
  const { path, volume, way, older } = await writeInPassage(scene, LONG_MS);
  path.follow(scene.segment(1, 2));
  await volume.write(8192, page(3), 0, 4096, false); // what comes does not wait
  way.speak();
  await older;
  expect(await scene.found(1, 2)).toBe(2);
  await write(other.volume, 4);
  expect(await scene.found(1, 2)).toBe(4);
});

test('N4: the old primary does not answer in time: what comes through it afterwards comes to nothing', async () => {
  const scene = await newScene();
  const { path, volume, way, older } = await writeInPassage(scene);
  path.follow(scene.segment(1, 2));
  await older;
  await write(volume, 3);
  await arrived(way);
  expect(await scene.found(1, 2)).toBe(3);
});

test('N4: the connection to the old primary breaks: the same, and hosts of other gateways follow', async () => {
  const scene = await newScene();
  const other = await scene.path(scene.segment(0, 1));
  const { path, volume, way, older } = await writeInPassage(scene, LONG_MS);
  const others = other.volume.write(4096, page(5), 0, 4096, false);
  path.follow(scene.segment(1, 2));
  await volume.write(8192, page(3), 0, 4096, false);
  scene.outside.get(scene.copy(0).storage)?.cut();
  await older;
  await write(volume, 3);
  await arrived(way);
  expect(await scene.found(1, 2)).toBe(3);
  other.path.follow(scene.segment(1, 2));
  await others;
});

test('N4: the connection breaks before the gateway hears of the switch: the same', async () => {
  const scene = await newScene();
  const { path, volume, way, older } = await writeInPassage(scene, LONG_MS);
  scene.outside.get(scene.copy(0).storage)?.cut();
  await eventually('the gateway has noticed', () => (volume.state === 'reconnecting' ? true : undefined));
  path.follow(scene.segment(1, 2));
  await older;
  await write(volume, 3);
  await arrived(way);
  expect(await scene.found(1, 2)).toBe(3);
});

test('N4: the gateway dies, and the host sends again through one that opens the volume', async () => {
  const scene = await newScene();
  const { path, way, older } = await writeInPassage(scene, LONG_MS);
  const lost = outcomeOf(older);
  path.giveUp('as if its process had died');
  expect(await lost).toBe('io');
  const next = await scene.path(scene.segment(1, 2));
  await write(next.volume, 2);
  await write(next.volume, 3);
  await arrived(way);
  expect(await scene.found(1, 2)).toBe(3);
});

test('N4: two switches: what is stuck in between comes to nothing at the third', async () => {
  const scene = await newScene(3);
  const { path, volume, way, older } = await writeInPassage(scene);
  const { made, copy, segment } = scene;
  await allDuplex(made);
  await made.group.switchTo(copy(2).realVolume);
  path.follow(segment(2, 3));
  await older;
  await write(volume, 3);
  await arrived(way);
  expect(await scene.found(2, 3)).toBe(3);
});
