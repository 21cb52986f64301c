/** A storage system as gateways see it: an NBD server of real volumes, which come with an epoch and a key. */

import { randomUUID } from 'node:crypto';
import type { Epoch, RealVolumeId } from '../../../src/control-protocol/names.ts';
import {
  AccessKey,
  Epoch as EpochSchema,
  RealVolumeId as IdSchema,
} from '../../../src/control-protocol/names.ts';
import { parseRealVolumeExport } from '../../../src/control-protocol/real-volume-export.ts';
import type { Volume } from '../../../src/model/volume.ts';
import { ExportRefused, type NbdExport, NbdServer } from '../../../src/nbd/server.ts';
import { silentLog } from '../log.ts';
import { freePort } from '../ports.ts';

export const KEY = AccessKey.parse('0123456789abcdef'.repeat(2));

export function realVolumeId(number: number): RealVolumeId {
  return IdSchema.parse(`rv-${number.toString(16).padStart(16, '0')}`);
}

interface RealVolume {
  readonly volume: Volume;
  /** undefined: it is no primary. */
  epoch: Epoch | undefined;
}

export class StorageStandIn {
  readonly name: string;
  /** How often an export was refused. */
  refusals = 0;
  readonly #volumes = new Map<RealVolumeId, RealVolume>();
  #server: NbdServer | undefined;
  #port = 0;

  constructor(name: string) {
    this.name = name;
  }

  get record(): object {
    const endpoint = { host: '127.0.0.1', port: this.#port };
    return {
      name: this.name,
      site: 'east',
      id: randomUUID(),
      nbd: endpoint,
      peer: endpoint,
      manage: 'http://127.0.0.1:1',
      capacityBytes: 2 ** 40,
      folder: '/nowhere',
    };
  }

  get port(): number {
    return this.#port;
  }

  put(id: RealVolumeId, volume: Volume, epoch = 1): void {
    this.#volumes.set(id, { volume, epoch: EpochSchema.parse(epoch) });
  }

  /** It is primary from that epoch on; undefined: it is none any more. Connections are left alone. */
  setEpoch(id: RealVolumeId, epoch: number | undefined): void {
    this.#real(id).epoch = epoch === undefined ? undefined : EpochSchema.parse(epoch);
  }

  take(id: RealVolumeId): Volume | undefined {
    const volume = this.#volumes.get(id)?.volume;
    this.#volumes.delete(id);
    return volume;
  }

  /** Connections with the older epoch are cut off; resolves when their writes have finished. */
  async raiseEpoch(id: RealVolumeId): Promise<void> {
    const real = this.#real(id);
    real.epoch = EpochSchema.parse((real.epoch ?? 0) + 1);
    await this.#server?.disconnect(real.volume, 'another epoch');
  }

  /** On the same port each time, unless it is told to move. */
  async start(port = this.#port): Promise<void> {
    this.#server = new NbdServer({
      exports: { list: () => [], find: (name) => this.#find(name) },
      log: silentLog,
      drainMs: 100,
    });
    this.#port = port === 0 ? await freePort() : port;
    await this.#server.listen({ host: '127.0.0.1', port: this.#port });
  }

  async stop(): Promise<void> {
    await this.#server?.stop();
    this.#server = undefined;
  }

  #real(id: RealVolumeId): RealVolume {
    const real = this.#volumes.get(id);
    if (real === undefined) throw new Error(`there is no ${id}`);
    return real;
  }

  #find(name: string): NbdExport {
    const { realVolume, access } = parseRealVolumeExport(name) ?? {};
    const real = realVolume === undefined ? undefined : this.#volumes.get(realVolume);
    if (real !== undefined && access?.epoch === real.epoch && access?.key === KEY) {
      return { name: realVolume as string, volume: real.volume };
    }
    this.refusals += 1;
    throw new ExportRefused('policy', 'another epoch, or no such real volume');
  }
}
