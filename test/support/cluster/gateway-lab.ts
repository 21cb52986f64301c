/** A real gateway in this process, between a directory's stand-in and storage systems' stand-ins. */

import { GatewayName, SiteName } from '../../../src/control-protocol/names.ts';
import { type GatewayOptions, startGateway } from '../../../src/gateway/service.ts';
import type { Log } from '../../../src/model/log.ts';
import type { Service } from '../../../src/model/service.ts';
import type { Volume } from '../../../src/model/volume.ts';
import { openRemoteVolume, type RemoteVolume } from '../../../src/nbd-client/remote-volume.ts';
import { silentLog } from '../log.ts';
import { type TemporaryFolder, temporaryFolder } from '../tools.ts';
import { MemoryVolume } from '../volumes/memory-volume.ts';
import { DirectoryStandIn } from './directory-stand-in.ts';
import { type SegmentOf, volumeOf } from './records.ts';
import { realVolumeId, StorageStandIn } from './storage-stand-in.ts';

export interface RunningGateway {
  readonly service: Service;
  readonly port: number;
  readonly manage: string;
}

export class GatewayLab {
  readonly directory = new DirectoryStandIn();
  readonly storage: readonly [StorageStandIn, StorageStandIn] = [
    new StorageStandIn('east-1'),
    new StorageStandIn('east-2'),
  ];
  readonly folder: TemporaryFolder;
  readonly #closers: (() => Promise<unknown>)[] = [];
  #realVolumes = 0;

  private constructor(folder: TemporaryFolder) {
    this.folder = folder;
  }

  static async start(): Promise<GatewayLab> {
    const lab = new GatewayLab(await temporaryFolder());
    await lab.directory.start();
    for (const storage of lab.storage) {
      await storage.start();
      lab.directory.putStorage(storage.record);
    }
    return lab;
  }

  /** A real volume on that storage system, as a segment. */
  real(index: 0 | 1, volume: Volume | number, more: Partial<SegmentOf> = {}): SegmentOf {
    const inner = typeof volume === 'number' ? new MemoryVolume(Buffer.alloc(volume)) : volume;
    this.#realVolumes += 1;
    const realVolume = realVolumeId(this.#realVolumes);
    this.storage[index].put(realVolume, inner);
    return { storage: this.storage[index].name, realVolume, length: inner.sizeBytes, ...more };
  }

  volume(name: string, segments: readonly SegmentOf[], more: object = {}): void {
    this.directory.putVolume(volumeOf(name, segments, more));
  }

  async gateway(
    name = 'east-gw',
    options: Partial<GatewayOptions> & { log?: Log } = {},
  ): Promise<RunningGateway> {
    const service = await startGateway({
      name: GatewayName.parse(name),
      site: SiteName.parse('east'),
      dataFolder: this.folder.file(name),
      listen: [{ host: '127.0.0.1', port: 0 }],
      manage: { host: '127.0.0.1', port: 0 },
      directoryUrl: this.directory.url,
      workers: 1,
      log: silentLog,
      ...options,
    });
    this.#closers.unshift(() => service.stop());
    const { uris, manage } = service.ready.document as { uris: string[]; manage: string };
    return { service, port: Number(new URL(uris[0] ?? '').port), manage };
  }

  /** A host that uses the volume. Its requests wait for a gateway that is away, as the kernel's do. */
  async host(
    { port }: { readonly port: number },
    exportName: string,
    connections = 1,
  ): Promise<RemoteVolume> {
    const volume = await openRemoteVolume({
      address: { host: '127.0.0.1', port },
      exportName,
      connections,
      log: silentLog,
    });
    this.#closers.unshift(() => volume.close());
    return volume;
  }

  async stop(): Promise<void> {
    for (const close of this.#closers.splice(0)) await Promise.allSettled([close()]);
    await this.directory.stop();
    for (const storage of this.storage) await Promise.allSettled([storage.stop()]);
    await this.folder.remove();
  }
}
