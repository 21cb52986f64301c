/** What the directory asks of storage systems and gateways. All throw ControlError. */

import { VolumeHosts } from './gateway-api.ts';
import { HttpClient, pathOf } from './http-client.ts';
import type { GatewayName, RealVolumeId, StorageName, VolumeName } from './names.ts';
import { type ChangeRealVolume, type MakeRealVolume, RealVolumeView } from './storage-api.ts';

/** For a look, which somebody waits for. */
const LOOK_MS_MAX = 2_000;

export class StorageClient {
  readonly #http: HttpClient;

  constructor(name: StorageName, manage: string) {
    this.#http = new HttpClient({ url: manage, who: `storage system ${name}` });
  }

  realVolume(id: RealVolumeId): Promise<RealVolumeView> {
    return this.#http.call(RealVolumeView, 'GET', pathOf('real-volumes', id), { timeoutMs: LOOK_MS_MAX });
  }

  makeRealVolume(id: RealVolumeId, body: MakeRealVolume): Promise<RealVolumeView> {
    return this.#http.call(RealVolumeView, 'PUT', pathOf('real-volumes', id), { body });
  }

  changeRealVolume(id: RealVolumeId, body: ChangeRealVolume): Promise<RealVolumeView> {
    return this.#http.call(RealVolumeView, 'PATCH', pathOf('real-volumes', id), { body });
  }

  deleteRealVolume(id: RealVolumeId, force: boolean): Promise<void> {
    return this.#http.send('DELETE', pathOf('real-volumes', id), { query: { force } });
  }
}

export class GatewayClient {
  readonly #http: HttpClient;

  constructor(name: GatewayName, manage: string) {
    this.#http = new HttpClient({ url: manage, who: `gateway ${name}`, timeoutMs: LOOK_MS_MAX });
  }

  hostsOf(volume: VolumeName): Promise<VolumeHosts> {
    return this.#http.call(VolumeHosts, 'GET', pathOf('volumes', volume, 'hosts'));
  }
}
