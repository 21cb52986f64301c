/** What the directory asks of storage systems and gateways. All throw ControlError. */

import { type GroupConfig, GroupView, type HandOver } from './copy-groups.ts';
import { VolumeHosts } from './gateway-api.ts';
import { HttpClient, pathOf } from './http-client.ts';
import type { GatewayName, RealVolumeId, StorageName, VolumeName } from './names.ts';
import { type ChangeRealVolume, type MakeRealVolume, RealVolumeView } from './storage-api.ts';

/** For a look, which somebody waits for. */
const LOOK_MS_MAX = 2_000;
/** To be told a group, which is asked for again. */
const TELL_MS_MAX = 3_000;

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

  /** How a member sees its group. */
  group(id: RealVolumeId, timeoutMs = LOOK_MS_MAX): Promise<GroupView> {
    return this.#http.call(GroupView, 'GET', pathOf('real-volumes', id, 'group'), { timeoutMs });
  }

  /** The same or an older revision is nothing; an older epoch is refused, `stale-epoch`. */
  configureGroup(id: RealVolumeId, body: GroupConfig): Promise<GroupView> {
    const options = { body, timeoutMs: TELL_MS_MAX };
    return this.#http.call(GroupView, 'PUT', pathOf('real-volumes', id, 'group'), options);
  }

  /** Answered when it is a secondary of that epoch, durably. */
  handOver(id: RealVolumeId, body: HandOver, timeoutMs: number): Promise<GroupView> {
    const options = { body, timeoutMs };
    return this.#http.call(GroupView, 'POST', pathOf('real-volumes', id, 'hand-over'), options);
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
