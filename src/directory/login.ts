/**
 * Logging in (R8): where to connect for a volume, and its primary at the nearest site that has a copy in step.
 *
 *  1. By an interface, which a person names: its sites, nearest first. When the switch fails, so does the log-in.
 *  2. By a gateway, before its first host: its own site alone, and only while no host uses the volume elsewhere, as far as can be
 *     asked, and when the primary has been where it is for STAY_MS. Whatever fails, the gateway is told where to connect.
 */

import type { GatewayRecord, VolumeRecord } from '../control-protocol/catalog.ts';
import type { Login, LoginView } from '../control-protocol/directory-api.ts';
import type { GatewayName, SiteName, VolumeName } from '../control-protocol/names.ts';
import { assert, ControlError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import { primaryOf } from '../replication/group-rules.ts';
import type { Catalog } from './catalog.ts';
import { type CopyRequests, successorsOf } from './copy-requests.ts';
import { interfaceAsked } from './interfaces.ts';
import { finishedOperation } from './operations/wait.ts';
import type { Peers } from './peers.ts';
import { byName, storageRecord, volumeRecord } from './views.ts';
import { hostsElsewhere } from './volume-users.ts';
import { exportUri } from './volume-view.ts';

/** Longer than a switch takes that fails at each step. */
const SWITCH_MS_MAX = 30_000;
/** Hosts that come and go at two sites in turn do not take the primary along each time. */
export const STAY_MS = 10_000;

export interface LoginsOptions {
  readonly catalog: Catalog;
  readonly requests: CopyRequests;
  readonly peers: Peers;
  readonly now: () => Date;
  readonly log: Log;
}

export class Logins {
  readonly #options: LoginsOptions;

  constructor(options: LoginsOptions) {
    this.#options = options;
  }

  /** @throws ControlError not-found, conflict, unavailable, failed */
  async login(name: VolumeName, by: Login): Promise<LoginView> {
    const { view } = this.#options.catalog;
    const volume = volumeRecord(view, name);
    if (volume.state === 'creating' || volume.state === 'deleting') {
      throw new ControlError('conflict', `volume ${name} cannot be used: it is ${volume.state}`);
    }
    return 'interface' in by
      ? this.#byInterface(volume, interfaceAsked(view, by.interface).sites)
      : this.#byGateway(volume, by.gateway);
  }

  async #byInterface(volume: VolumeRecord, sites: readonly SiteName[]): Promise<LoginView> {
    const nearest = sites.find((site) => this.#canServe(volume, site));
    if (nearest !== undefined && !this.#serves(volume, nearest)) await this.#switch(volume.name, nearest);
    const site = nearest ?? this.#siteOfPrimary(volume.name);
    return this.#view(volume.name, this.#gatewayNear([site, ...sites]));
  }

  async #byGateway(volume: VolumeRecord, name: GatewayName): Promise<LoginView> {
    const { catalog, log } = this.#options;
    const gateway = catalog.view.gateways.get(name);
    if (gateway === undefined) throw new ControlError('not-found', `there is no gateway ${name}`);
    try {
      if (await this.#mayMoveTo(volume, gateway)) await this.#switch(volume.name, gateway.site);
    } catch (error) {
      if (!(error instanceof ControlError)) throw error;
      log.warn({ volume: volume.name, gateway: name, error: error.message }, 'no switch for a log-in');
    }
    return this.#view(volume.name, gateway);
  }

  async #mayMoveTo(volume: VolumeRecord, { site, name }: GatewayRecord): Promise<boolean> {
    if (volume.operation !== null || this.#serves(volume, site) || !this.#canServe(volume, site))
      return false;
    if (this.#hasMoved(volume.name)) return false;
    const { catalog, peers } = this.#options;
    return (await hostsElsewhere(volume, { view: catalog.view, peers, but: name })).length === 0;
  }

  /** A moment ago, by whatever means. */
  #hasMoved(name: VolumeName): boolean {
    const { catalog, now } = this.#options;
    const nowMs = now().getTime();
    return [...catalog.view.operations.values()].some(({ volume, kind, finishedAt }) => {
      if (volume !== name || finishedAt === null) return false;
      if (kind !== 'switch-copy' && kind !== 'failover-copy') return false;
      const agoMs = nowMs - Date.parse(finishedAt);
      return agoMs >= 0 && agoMs < STAY_MS; // a clock that was put back keeps nobody waiting
    });
  }

  /** All of the volume is there: as primary, or as a copy that is in step and online. */
  #canServe({ segments }: VolumeRecord, site: SiteName): boolean {
    const { view } = this.#options.catalog;
    return segments.every((segment) => {
      const primary = primaryOf(segment);
      const isHere = view.presence.has(`storage/${primary.storage}`) ? [primary] : [];
      return [...isHere, ...successorsOf(view, segment)].some(
        ({ storage }) => storageRecord(view, storage).site === site,
      );
    });
  }

  #serves({ segments }: VolumeRecord, site: SiteName): boolean {
    const { view } = this.#options.catalog;
    return segments.every((segment) => storageRecord(view, primaryOf(segment).storage).site === site);
  }

  async #switch(name: VolumeName, site: SiteName): Promise<void> {
    const { catalog, requests } = this.#options;
    const { id } = await requests.switch(name, { site });
    const { state, error } = await finishedOperation(catalog, id, SWITCH_MS_MAX);
    if (state === 'done') return;
    const why = error === null ? `operation ${id} has not finished yet` : error.message;
    throw new ControlError(
      'failed',
      `the primary of volume ${name} was not switched to site ${site}: ${why}`,
    );
  }

  #siteOfPrimary(name: VolumeName): SiteName {
    const { view } = this.#options.catalog;
    const [first] = volumeRecord(view, name).segments;
    assert(first !== undefined, 'a volume that can be used has segments');
    return storageRecord(view, primaryOf(first).storage).site;
  }

  /** Of those that are online, the first of the first site that has one; otherwise any. @throws ControlError unavailable */
  #gatewayNear(sites: readonly SiteName[]): GatewayRecord {
    const { view } = this.#options.catalog;
    const online = byName(view.gateways).filter(({ name }) => view.presence.has(`gateway/${name}`));
    for (const site of sites) {
      const near = online.find((gateway) => gateway.site === site);
      if (near !== undefined) return near;
    }
    const [any] = online;
    if (any === undefined)
      throw new ControlError('unavailable', 'no gateway is online: start one, and try again');
    return any;
  }

  #view(name: VolumeName, gateway: GatewayRecord): LoginView {
    const [uri] = gateway.uris;
    assert(uri !== undefined, 'a gateway listens');
    return { uri: exportUri(uri, name), site: this.#siteOfPrimary(name), gateway: gateway.name };
  }
}
