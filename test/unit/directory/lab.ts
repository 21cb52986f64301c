/** A directory with storage systems and gateways that are stand-ins, taken away with the test. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import type { OperationRecord } from '../../../src/control-protocol/catalog.ts';
import { CreateVolume } from '../../../src/control-protocol/directory-api.ts';
import { DirectoryClient } from '../../../src/control-protocol/directory-client.ts';
import { VolumeName } from '../../../src/control-protocol/names.ts';
import { type DirectoryParts, startDirectoryOn } from '../../../src/directory/service.ts';
import { SqliteStore } from '../../../src/directory/sqlite-store.ts';
import { ControlError } from '../../../src/model/errors.ts';
import type { Service } from '../../../src/model/service.ts';
import { GatewayStandIn, StorageStandIn, until } from '../../support/directory-lab.ts';
import { silentLog } from '../../support/log.ts';
import { freePort } from '../../support/ports.ts';

/** Short for what never comes, in a test. A hand-over that is slow is cut off at its limit, so that one is long. */
export const LIMITS = {
  retryMs: 200,
  handOverMs: 20_000,
  serveMs: 400,
  letGoMs: 100,
  backoffMinMs: 5,
  backoffMaxMs: 20,
};

export interface Lab {
  readonly directory: DirectoryClient;
  /** Stops the directory, and starts another on the same catalog and port. */
  restart(): Promise<void>;
  stop(): Promise<void>;
  /** Started, and reporting. */
  storage(name: string, capacityBytes: number, site?: string): Promise<StorageStandIn>;
  gateway(name: string, site?: string): Promise<GatewayStandIn>;
  /** The operation as it has ended. */
  create(name: string, sizeBytes: number, segments?: object[], copies?: string[]): Promise<OperationRecord>;
  ended(begun: Promise<OperationRecord>): Promise<OperationRecord>;
  delete(name: string, force?: boolean): Promise<OperationRecord>;
  resize(name: string, sizeBytes: number, allowShrink?: boolean): Promise<OperationRecord>;
}

export async function makeLab(parts: Partial<DirectoryParts> = {}): Promise<Lab> {
  const folder = mkdtempSync(join(tmpdir(), 'volary-directory-'));
  const standIns: (StorageStandIn | GatewayStandIn)[] = [];
  let store: SqliteStore;
  let service: Service | undefined;
  const start = async (port: number): Promise<string> => {
    store = SqliteStore.open(join(folder, 'catalog.db'));
    service = await startDirectoryOn({
      store,
      listen: { host: '127.0.0.1', port },
      log: silentLog,
      limits: LIMITS,
      garbageRetryMs: 20,
      ...parts,
    });
    return (service.ready.document as { directory: string }).directory;
  };
  const stop = async (): Promise<void> => {
    await service?.stop();
    service = undefined;
    await store.close();
  };
  const directory = new DirectoryClient(await start(await freePort()));
  onTestFinished(async () => {
    for (const each of standIns) await each.stop();
    await stop();
    rmSync(folder, { recursive: true });
  });
  const add = async <T extends StorageStandIn | GatewayStandIn>(standIn: T, site = 'east'): Promise<T> => {
    standIn.site = site;
    standIns.push(standIn);
    await standIn.start();
    await standIn.report(() => directory.url);
    return standIn;
  };
  const ended = async (begun: Promise<OperationRecord>): Promise<OperationRecord> =>
    directory.finished((await begun).id);
  const answers = async (): Promise<boolean> => {
    try {
      await directory.cluster();
      return true;
    } catch (error) {
      if (error instanceof ControlError && error.code === 'unreachable') return false;
      throw error;
    }
  };
  const named = (name: string): VolumeName => VolumeName.parse(name);
  return {
    directory,
    stop,
    restart: async () => {
      await stop();
      await start(Number(new URL(directory.url).port));
      await until(answers); // connections to the one before are found dead
    },
    storage: (name, capacityBytes, site) => add(new StorageStandIn(name, capacityBytes), site),
    gateway: (name, site) => add(new GatewayStandIn(name), site),
    ended,
    create: (name, sizeBytes, segments, copies) =>
      ended(directory.createVolume(CreateVolume.parse({ name, sizeBytes, segments, copies }))),
    delete: (name, force = false) => ended(directory.deleteVolume(named(name), force)),
    resize: (name, sizeBytes, allowShrink = false) =>
      ended(directory.resizeVolume(named(name), { sizeBytes, allowShrink })),
  };
}
