/**
 * The parts of storage systems that copies are made of, several of them in this process, with real files and real connections; and
 * a desk that does what a directory would, without HTTP between them.
 */

import { mkdirSync } from 'node:fs';
import { StorageRecord } from '../../src/control-protocol/catalog.ts';
import { SiteName, StorageName } from '../../src/control-protocol/names.ts';
import { ControlError } from '../../src/model/errors.ts';
import type { Log } from '../../src/model/log.ts';
import type { SocketAddress } from '../../src/model/socket-address.ts';
import type { Volume } from '../../src/model/volume.ts';
import { NbdServer } from '../../src/nbd/server.ts';
import { connectToPeer } from '../../src/peer-protocol/connect.ts';
import { PeerServer } from '../../src/peer-protocol/server.ts';
import type { ReplicaLimits } from '../../src/replication/limits.ts';
import { Replica } from '../../src/replication/replica.ts';
import { copyFolders } from '../../src/storage-system/copy-folders.ts';
import { exportsOf } from '../../src/storage-system/exports.ts';
import { GroupDirectory } from '../../src/storage-system/group-directory.ts';
import { type MemberFolders, Members } from '../../src/storage-system/members.ts';
import { RealVolumeTable } from '../../src/storage-system/real-volume-table.ts';
import { RealVolumes } from '../../src/storage-system/real-volumes.ts';
import { volumeFolder } from '../../src/storage-system/start-check.ts';
import { memoryFolder } from './disk.ts';
import { type Copy, type DeskGroup, type DeskOptions, GroupDesk } from './group-desk.ts';
import { silentLog } from './log.ts';
import { CLUSTER, idOf, wantedOf } from './storage-system.ts';
import { eventually } from './tools.ts';

export interface LabOptions {
  readonly systems?: number;
  readonly limits?: Partial<ReplicaLimits>;
  readonly leaseMs?: number;
  readonly fence?: DeskOptions['fence'];
  readonly log?: Log;
  /** Puts itself between members and their folders. */
  readonly folders?: (system: string, folders: MemberFolders) => MemberFolders;
  /** Where others find a storage system whose peers listen there. */
  readonly peerAt?: (system: string, address: SocketAddress) => Promise<SocketAddress>;
}

/** One storage system, as far as copies go. */
export interface System {
  readonly name: string;
  readonly path: string;
  readonly table: RealVolumeTable;
  readonly realVolumes: RealVolumes;
  readonly members: Members;
  readonly uri: string;
  readonly peer: { readonly host: string; readonly port: number };
  stop(): Promise<void>;
}

export class MemberLab implements AsyncDisposable {
  readonly desk: GroupDesk;
  readonly systems = new Map<string, System>();
  readonly #storage = new Map<string, StorageRecord>();
  readonly #folder = memoryFolder();
  readonly #options: LabOptions;
  #made = 0;

  private constructor(options: LabOptions) {
    this.#options = options;
    this.desk = new GroupDesk({
      ...{ storage: this.#storage, leaseMs: options.leaseMs ?? 1_000, fence: options.fence ?? 'never' },
      members: {
        configure: async ({ storage, realVolume }, config) =>
          this.system(storage).members.configure(realVolume, config),
        handOver: async ({ storage, realVolume }, body) =>
          this.system(storage).members.handOver(realVolume, body),
      },
    });
  }

  /** Storage systems s1, s2, … */
  static async start(options: LabOptions = {}): Promise<MemberLab> {
    const lab = new MemberLab(options);
    for (let n = 1; n <= (options.systems ?? 2); n++) await lab.startSystem(`s${n}`);
    return lab;
  }

  system(name: string): System {
    const system = this.systems.get(name);
    if (system === undefined) throw new ControlError('unreachable', `storage system ${name} is not there`);
    return system;
  }

  /** On the folder that it had before, when it has been there. */
  async startSystem(name: string, bootId?: string): Promise<System> {
    const { limits, log = silentLog, folders = (_: string, real: MemberFolders) => real } = this.#options;
    const { peerAt = async (_: string, address: SocketAddress) => address } = this.#options;
    const path = `${this.#folder.path}/${name}`;
    mkdirSync(`${path}/volumes`, { recursive: true });
    const table = new RealVolumeTable(`${path}/meta.db`);
    if (table.clusterId === undefined) table.joinCluster(CLUSTER);
    const realVolumes: RealVolumes = new RealVolumes({
      ...{ table, fileOf: volumeFolder(`${path}/volumes`).fileOf, capacityBytes: 2 ** 50, idleMax: 8, log },
      connections: {
        of: (volume) => nbd.connectionsOf(volume),
        cut: (volume, why) => nbd.disconnect(volume, why),
      },
      onFailures: () => undefined,
    });
    const asker = () => ({ storage: StorageName.parse(name), acknowledged: 0, lives: [] });
    const directory = new GroupDirectory({ api: this.desk, asker, log });
    const members = new Members({
      ...{ table, realVolumes, directory, log },
      folders: folders(name, copyFolders(`${path}/copies`, bootId)),
      rulesOf: (id) => new Replica({ id, ...limits }),
      connect: (address, hello, signal) => connectToPeer({ address, hello, timeoutMs: 2_000, signal }),
    });
    realVolumes.attach(members);
    const nbd = new NbdServer({ exports: exportsOf(realVolumes, members), log });
    await members.start();
    const peers = new PeerServer({ onHello: members.onHello, log });
    const nbdAt = await nbd.listen({ host: '127.0.0.1', port: 0 });
    const record = {
      ...{ name: StorageName.parse(name), site: SiteName.parse('east'), id: crypto.randomUUID(), nbd: nbdAt },
      ...{
        peer: await peerAt(name, await peers.listen({ host: '127.0.0.1', port: 0 })),
        manage: 'http://127.0.0.1:1',
      },
      ...{ capacityBytes: 2 ** 50, folder: path },
    };
    const stop = async (): Promise<void> => {
      this.systems.delete(name);
      peers.close();
      await realVolumes.stop();
      await nbd.stop();
      directory.stop();
      await members.stop();
      await realVolumes.files.closeAll();
      table.close();
    };
    const uri = `nbd://127.0.0.1:${'port' in nbdAt ? nbdAt.port : 0}`;
    const system = { name, path, table, realVolumes, members, uri, peer: record.peer, stop };
    this.systems.set(name, system);
    const hasMoved = this.#storage.has(name);
    this.#storage.set(name, StorageRecord.parse(record));
    if (hasMoved) this.desk.moved();
    return system;
  }

  /** Makes real volumes on the storage systems (default: all), and a group of them; the first is its primary. */
  async makeGroup(sizeBytes: number, names = [...this.systems.keys()]): Promise<LabGroup> {
    const copies: Copy[] = [];
    for (const name of names) copies.push(await this.#makeCopy(name, sizeBytes));
    const group = await this.desk.make(copies, sizeBytes);
    return { group, copies, files: copies.map((copy) => this.fileOf(copy)) };
  }

  /** One copy more. */
  async addCopy({ group, copies, files }: LabGroup, name: string): Promise<LabGroup> {
    const copy = await this.#makeCopy(name, group.segment.length);
    this.desk.add(group, copy);
    return { group, copies: [...copies, copy], files: [...files, this.fileOf(copy)] };
  }

  async #makeCopy(storage: string, sizeBytes: number): Promise<Copy> {
    this.#made += 1;
    const realVolume = idOf(this.#made);
    await this.system(storage).realVolumes.make(realVolume, wantedOf(sizeBytes));
    return { storage, realVolume };
  }

  fileOf({ storage, realVolume }: Copy): string {
    return `${this.#folder.path}/${storage}/volumes/${realVolume}.raw`;
  }

  /** What is behind the door for use. */
  volume({ storage, realVolume }: Copy): Volume {
    const volume = this.system(storage).members.behind(realVolume)?.volume;
    if (volume === undefined) throw new Error(`${realVolume} is no member`);
    return volume;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.desk.stop();
    // One after the other: what is used through one that stops is there still.
    for (const system of [...this.systems.values()]) await system.stop();
    await this.#folder.remove();
  }
}

export type { Copy };

export interface LabGroup {
  readonly group: DeskGroup;
  readonly copies: readonly Copy[];
  /** Of each copy. */
  readonly files: readonly string[];
}

/** All secondaries are duplex, in the record. */
export async function allDuplex({ group }: { readonly group: DeskGroup }): Promise<void> {
  await eventually('all pairs are duplex', () => {
    const secondaries = group.segment.copies.filter(({ role }) => role === 'secondary');
    return secondaries.every(({ pair }) => pair === 'duplex') || undefined;
  });
}
