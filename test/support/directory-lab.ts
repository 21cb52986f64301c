/**
 * Storage systems and gateways for tests of the directory: real HTTP servers with the API that storage-api.ts and gateway-api.ts
 * describe, and nothing behind it. What they hold outlives every directory.
 */

import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { GroupConfig, HandOver } from '../../src/control-protocol/copy-groups.ts';
import { GatewayReport, type Registered, StorageReport } from '../../src/control-protocol/directory-api.ts';
import { DirectoryClient } from '../../src/control-protocol/directory-client.ts';
import {
  type AccessKey,
  type Epoch,
  GatewayName,
  RealVolumeId,
  StorageName,
  VolumeName,
} from '../../src/control-protocol/names.ts';
import { ChangeRealVolume, MakeRealVolume } from '../../src/control-protocol/storage-api.ts';
import { ControlError } from '../../src/model/errors.ts';

export const MiB = 1024 * 1024;
export const GiB = 1024 * MiB;

/** `cut`: the request is not done and not answered; `cut-after`: done, and not answered. */
export type Behaviour = 'serve' | 'cut' | 'cut-after' | { readonly status: number; readonly code: string };

export interface Asked {
  readonly method: string;
  readonly id: string;
  /** Bytes that the storage system comes to need. */
  readonly growth: number;
}

/** A member of a copy group, as far as the directory sees one. */
interface Member {
  epoch: number;
  role: 'primary' | 'secondary';
  config: GroupConfig;
  readonly pairRevisions: Map<string, number>;
}

interface Held {
  sizeBytes: number;
  volume: VolumeName | null;
  epoch: Epoch;
  readonly accessKey: AccessKey;
}

/** How often what reports itself does so. */
const REPORT_MS = 100;

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return (server.address() as AddressInfo).port;
}

function answer(response: ServerResponse, status: number, document: object): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(document));
}

abstract class StandIn {
  readonly id: string = randomUUID();
  clusterId: string | null = null;
  site = 'east';
  /** The directory that it has reported to last. */
  protected directory: DirectoryClient | undefined;
  #server: Server | undefined;
  #port = 0;
  #reporting = new AbortController();
  #reported: Promise<void> = Promise.resolve();

  get port(): number {
    return this.#port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** On a new port each time. */
  async start(): Promise<void> {
    this.#server = createServer((request, response) => {
      this.serve(request, response).catch((error: unknown) => {
        answer(response, 400, { error: { code: 'bad-request', message: String(error) } });
      });
    });
    this.#port = await listen(this.#server);
  }

  /** Nothing is answered any more, and nothing reported. */
  async stop(): Promise<void> {
    this.#reporting.abort();
    await this.#reported;
    this.#server?.closeAllConnections();
    await new Promise((resolve) => this.#server?.close(resolve) ?? resolve(undefined));
    this.#server = undefined;
  }

  /** Reports once, then again and again to whichever directory `url` names. */
  async report(url: () => string): Promise<void> {
    await this.reportOnce(url());
    this.#reporting = new AbortController();
    const { signal } = this.#reporting;
    this.#reported = this.#keepReporting(url, signal);
  }

  async #keepReporting(url: () => string, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      await sleep(REPORT_MS, undefined, { signal }).catch(() => undefined);
      if (signal.aborted) return;
      try {
        await this.reportOnce(url());
      } catch (error) {
        if (!(error instanceof ControlError)) throw error; // the directory is away: later
      }
    }
  }

  async reportOnce(url: string): Promise<Registered> {
    this.directory = new DirectoryClient(url);
    const registered = await this.send(this.directory);
    this.clusterId = registered.clusterId;
    return registered;
  }

  protected abstract send(directory: DirectoryClient): Promise<Registered>;
  protected abstract serve(request: IncomingMessage, response: ServerResponse): Promise<void>;
}

export class StorageStandIn extends StandIn {
  readonly name: StorageName;
  capacityBytes: number;
  failed: StorageReport['failed'] = [];
  readonly realVolumes = new Map<string, Held>();
  /** What was asked, in order: `PUT rv-…`. */
  readonly asked: string[] = [];
  behaviour: (asked: Asked) => Behaviour | Promise<Behaviour> = () => 'serve';
  /** Real volumes that somebody uses; `connections` of each is what a view says. */
  readonly inUse = new Set<string>();
  /** Copy groups that it has members of. */
  readonly members = new Map<string, Member>();
  /** As a primary, it brings up what it is told of, and reports that; otherwise the test does. */
  copies = false;
  peerPort = 20_001;
  /** What is waited for between doing and answering. */
  after: (asked: Asked) => Promise<void> | undefined = () => undefined;
  /** Whether a new primary serves at once. */
  serves = true;
  connections = 0;

  constructor(name: string, capacityBytes: number) {
    super();
    this.name = StorageName.parse(name);
    this.capacityBytes = capacityBytes;
  }

  get sizes(): Record<string, number> {
    return Object.fromEntries([...this.realVolumes].map(([id, { sizeBytes }]) => [id, sizeBytes]));
  }

  get reportBody(): StorageReport {
    return StorageReport.parse({
      site: this.site,
      id: this.id,
      nbd: { host: '127.0.0.1', port: 20_000 },
      peer: { host: '127.0.0.1', port: this.peerPort },
      manage: this.url,
      capacityBytes: this.capacityBytes,
      folder: `/srv/${this.name}`,
      clusterId: this.clusterId,
      realVolumes: this.realVolumes.size,
      usedBytes: 0,
      failed: this.failed,
    });
  }

  protected send(directory: DirectoryClient): Promise<Registered> {
    return directory.reportStorage(this.name, this.reportBody);
  }

  protected async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.url);
    const [, name, what = ''] = /^\/real-volumes\/([^/]+)(?:\/([a-z-]+))?$/.exec(url.pathname) ?? [];
    const id = RealVolumeId.parse(name);
    const method = `${request.method}${what === '' ? '' : ` ${what}`}`;
    const body = await text(request);
    this.asked.push(`${method} ${id}`);
    const growth = what === '' ? this.#growthBy(id, body) : 0;
    const behaviour = await this.behaviour({ method, id, growth });
    if (behaviour === 'cut') {
      response.destroy();
      return;
    }
    if (typeof behaviour === 'object') {
      answer(response, behaviour.status, {
        error: { code: behaviour.code, message: 'as the test wants it' },
      });
      return;
    }
    const force = url.searchParams.get('force') === 'true';
    const done = what === '' ? this.#do(method, id, body, force) : this.#doAsMember(method, id, body);
    await this.after({ method, id, growth });
    if (behaviour === 'cut-after') response.destroy();
    else answer(response, done.status, done.document);
  }

  #doAsMember(method: string, id: RealVolumeId, body: string): { status: number; document: object } {
    const member = this.members.get(id);
    if (!this.realVolumes.has(id)) return refusal('not-found', 404);
    if (method === 'PUT group') {
      const config = GroupConfig.parse(JSON.parse(body));
      if (config.epoch < (member?.epoch ?? 0)) return refusal('stale-epoch');
      if (member === undefined || config.revision > member.config.revision) this.#configure(id, config);
    } else if (member === undefined) {
      return refusal('not-found', 404);
    } else if (method === 'POST hand-over') {
      const { epoch, to } = HandOver.parse(JSON.parse(body));
      if (member.role !== 'primary' || epoch <= member.epoch) return refusal('stale-epoch');
      if (member.config.members.every(({ realVolume }) => realVolume !== to)) return refusal('conflict');
      member.epoch = epoch;
      member.role = 'secondary';
    }
    return { status: 200, document: this.#memberView(id) };
  }

  #configure(id: RealVolumeId, config: GroupConfig): void {
    const role = config.primary === id ? 'primary' : 'secondary';
    const pairRevisions = this.members.get(id)?.pairRevisions ?? new Map<string, number>();
    for (const { realVolume, pairRevision } of config.members) {
      pairRevisions.set(realVolume, Math.max(pairRevision, pairRevisions.get(realVolume) ?? 0));
    }
    const member = { epoch: config.epoch, role, config, pairRevisions } as const;
    this.members.set(id, { ...member });
    if (role === 'primary' && this.copies) this.#bringUp(id);
  }

  /** Says that every secondary is as it is wanted. What is refused is done again when it is told anew. */
  async #bringUp(id: RealVolumeId): Promise<void> {
    for (const { realVolume, pair, wanted } of this.members.get(id)?.config.members ?? []) {
      const then = wanted === 'following' ? 'duplex' : 'suspended';
      if (realVolume === id || pair === then) continue;
      try {
        await this.reportPair(id, realVolume, then);
      } catch (error) {
        if (!(error instanceof ControlError)) throw error;
      }
    }
  }

  /** As the primary `id`, with what it knows. */
  async reportPair(
    id: RealVolumeId,
    member: RealVolumeId,
    pair: 'copying' | 'duplex' | 'suspended',
  ): Promise<void> {
    const known = this.members.get(id);
    if (known === undefined || this.directory === undefined) throw new Error(`${id} has not been told`);
    const { pairRevision } = await this.directory.reportPair({
      primary: id,
      epoch: known.config.epoch,
      member,
      pair,
      reason: pair === 'suspended' ? 'unreachable' : null,
      pairRevision: known.pairRevisions.get(member) ?? 0,
    });
    known.pairRevisions.set(member, pairRevision);
  }

  #memberView(id: RealVolumeId): object {
    const member = this.members.get(id);
    const others = member?.config.members.filter(({ realVolume }) => realVolume !== id) ?? [];
    return {
      realVolume: id,
      epoch: member?.epoch,
      revision: member?.config.revision,
      role: member?.role,
      serving: member?.role === 'primary' && this.serves,
      pairs:
        member?.role !== 'primary'
          ? []
          : others.map(({ realVolume, pair }) => ({
              realVolume,
              state: pair,
              outOfSyncBytes: pair === 'duplex' ? 0 : 4096,
              copiedBytes: 0,
            })),
    };
  }

  #growthBy(id: RealVolumeId, body: string): number {
    const wanted = body === '' ? undefined : (JSON.parse(body) as { sizeBytes?: number }).sizeBytes;
    const now = this.realVolumes.get(id)?.sizeBytes ?? 0;
    return (wanted ?? now) - now;
  }

  #do(method: string, id: RealVolumeId, body: string, force: boolean): { status: number; document: object } {
    const held = this.realVolumes.get(id);
    if (method === 'PUT') {
      const made = MakeRealVolume.parse(JSON.parse(body));
      if (held !== undefined && JSON.stringify(held) !== JSON.stringify(made)) return refusal('conflict');
      this.realVolumes.set(id, made);
    } else if (method === 'PATCH') {
      if (held === undefined) return refusal('not-found', 404);
      const { sizeBytes, failure } = ChangeRealVolume.parse(JSON.parse(body));
      if (failure !== undefined) this.failed = this.failed.filter(({ realVolume }) => realVolume !== id);
      if (sizeBytes !== undefined) held.sizeBytes = sizeBytes;
    } else if (method === 'DELETE') {
      if (this.inUse.has(id) && !force) return refusal('in-use');
      this.realVolumes.delete(id);
      this.members.delete(id);
      return { status: 200, document: {} };
    }
    const now = this.realVolumes.get(id);
    if (now === undefined) return refusal('not-found', 404);
    const { accessKey: _, ...shown } = now;
    const file = `/srv/${this.name}/${id}.img`;
    const reason = this.failed.find(({ realVolume }) => realVolume === id)?.reason ?? null;
    const state = reason === null ? 'in-use' : 'failed';
    return {
      status: 200,
      document: { id, state, reason, ...shown, file, connections: this.connections },
    };
  }
}

function refusal(code: string, status = 409): { status: number; document: object } {
  return { status, document: { error: { code, message: 'a stand-in refuses' } } };
}

export class GatewayStandIn extends StandIn {
  readonly name: GatewayName;
  readonly hosts = new Map<string, number>();
  answers = true;

  constructor(name: string) {
    super();
    this.name = GatewayName.parse(name);
  }

  get reportBody(): GatewayReport {
    return GatewayReport.parse({
      site: this.site,
      id: this.id,
      uris: [`nbd://127.0.0.1:10809`],
      manage: this.url,
      clusterId: this.clusterId,
      revision: 0,
      hosts: 0,
    });
  }

  protected send(directory: DirectoryClient): Promise<Registered> {
    return directory.reportGateway(this.name, this.reportBody);
  }

  protected async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [, name = ''] = /^\/volumes\/([^/]+)\/hosts$/.exec(request.url ?? '') ?? [];
    const volume = VolumeName.parse(decodeURIComponent(name));
    if (!this.answers) response.destroy();
    else answer(response, 200, { volume, connections: this.hosts.get(volume) ?? 0 });
  }
}

/** Asks again until it holds; the test's own time limit is the limit. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await sleep(10);
}
