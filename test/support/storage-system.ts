/** Storage systems for tests: in this process or in one of their own, and a directory that only takes reports. */

import { z } from 'zod';
import { Registered, StorageReport } from '../../src/control-protocol/directory-api.ts';
import { HttpClient } from '../../src/control-protocol/http-client.ts';
import {
  AccessKey,
  Epoch,
  RealVolumeId,
  SiteName,
  StorageName,
  VolumeName,
} from '../../src/control-protocol/names.ts';
import { StorageClient } from '../../src/control-protocol/peers-client.ts';
import { formatRealVolumeExport } from '../../src/control-protocol/real-volume-export.ts';
import type { MakeRealVolume, RealVolumeView } from '../../src/control-protocol/storage-api.ts';
import type { ControlError } from '../../src/model/errors.ts';
import { createHttpServer } from '../../src/runtime/http-server.ts';
import { listenHttp } from '../../src/runtime/listen.ts';
import type { StorageSystemOptions } from '../../src/storage-system/service.ts';
import { silentLog } from './log.ts';
import { type StartOptions, startVolary, type VolaryProcess } from './volary-process.ts';

export const STORAGE = StorageName.parse('east-1');
export const KEY = AccessKey.parse('0123456789abcdef0123456789abcdef');
export const CLUSTER = '11111111-2222-4333-8444-555555555555';
export const KiB = 1024;
export const MiB = 1024 * 1024;

/** A directory as far as a storage system sees it. */
export interface ReportDirectory extends AsyncDisposable {
  readonly url: string;
  /** All that it was told, the newest last. */
  readonly reports: StorageReport[];
  /** What it answers from now on. */
  answer: (report: StorageReport) => Registered | ControlError;
}

export async function reportDirectory(port = 0): Promise<ReportDirectory> {
  const server = createHttpServer({ title: 'directory', log: silentLog, notReady: () => undefined });
  const reports: StorageReport[] = [];
  const told = {
    answer: (_report: StorageReport): Registered | ControlError => ({ clusterId: CLUSTER, leaseMs: 3000 }),
  };
  server.after(() => {
    const params = z.object({ name: StorageName });
    const schema = { params, body: StorageReport, response: { 200: Registered } };
    server.put('/storage/:name', { schema }, async ({ body }) => {
      reports.push(body);
      const answer = told.answer(body);
      if (answer instanceof Error) throw answer;
      return answer;
    });
  });
  const url = await listenHttp(server, { host: '127.0.0.1', port });
  return Object.assign(told, { url, reports, [Symbol.asyncDispose]: () => server.close() });
}

const LOOPBACK = { host: '127.0.0.1', port: 0 };

export function storageOptions(dataFolder: string, directoryUrl: string): Omit<StorageSystemOptions, 'log'> {
  return {
    ...{ name: STORAGE, site: SiteName.parse('east'), dataFolder, directoryUrl },
    ...{ listen: LOOPBACK, peer: LOOPBACK, manage: LOOPBACK, capacityBytes: 2 ** 50 },
  };
}

export const Ready = z.object({
  ready: z.literal(true),
  uri: z.string(),
  peer: z.string(),
  manage: z.string(),
});
export type Ready = z.infer<typeof Ready>;

/** The n-th real volume of a test. */
export function idOf(n: number): RealVolumeId {
  return RealVolumeId.parse(`rv-${n.toString(16).padStart(16, '0')}`);
}

export function wantedOf(sizeBytes: number, changes: Partial<MakeRealVolume> = {}): MakeRealVolume {
  return { sizeBytes, volume: VolumeName.parse('data'), epoch: epochOf(1), accessKey: KEY, ...changes };
}

export function epochOf(epoch: number): Epoch {
  return Epoch.parse(epoch);
}

export function exportOf(id: RealVolumeId, epoch = 1, key = KEY): string {
  return formatRealVolumeExport(id, epochOf(epoch), key);
}

export function clientOf({ manage }: { readonly manage: string }): StorageClient {
  return new StorageClient(STORAGE, manage);
}

export function realVolumes({ manage }: { readonly manage: string }): Promise<RealVolumeView[]> {
  const http = new HttpClient({ url: manage, who: 'the storage system' });
  return http.call(z.array(z.any()), 'GET', '/real-volumes') as Promise<RealVolumeView[]>;
}

export interface StorageProcess extends VolaryProcess {
  readonly places: Ready;
}

/** `bin/volary run storage`, as a process of its own. */
export async function startStorageProcess(
  dataFolder: string,
  directoryUrl: string,
  options: StartOptions & { readonly more?: readonly string[] } = {},
): Promise<StorageProcess> {
  const args = [
    ...['run', 'storage', '--name', STORAGE, '--site', 'east', '--data', dataFolder],
    ...['--listen', 'nbd://127.0.0.1:0', '--peer', '127.0.0.1:0', '--manage', 'http://127.0.0.1:0'],
    ...['--directory', directoryUrl, ...(options.more ?? [])],
  ];
  const started = await startVolary(args, options);
  return { ...started, places: Ready.parse(started.ready) };
}
