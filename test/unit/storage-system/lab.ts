/** A storage system in this process, on a folder in memory, with a directory that takes its reports. */

import type { StorageClient } from '../../../src/control-protocol/peers-client.ts';
import type { Service } from '../../../src/model/service.ts';
import { Option, OptionReply } from '../../../src/nbd-server-protocol/constants.ts';
import { type StorageSystemOptions, startStorageSystem } from '../../../src/storage-system/service.ts';
import { addressOf, NbdClient } from '../../support/client.ts';
import { memoryFolder } from '../../support/disk.ts';
import { type LogLine, recordingLog } from '../../support/log.ts';
import {
  clientOf,
  Ready,
  type ReportDirectory,
  reportDirectory,
  storageOptions,
} from '../../support/storage-system.ts';
import { optionRequest, readGreeting, readOptionReply, u32, Wire } from '../../support/wire.ts';

export interface StorageLab extends AsyncDisposable {
  readonly directory: ReportDirectory;
  readonly folder: string;
  readonly log: LogLine[];
  ready: Ready;
  client: StorageClient;
  open(exportName: string): Promise<NbdClient>;
  /** The storage system again, after whatever has been done to its folder. */
  restart(meanwhile?: () => void | Promise<void>, changes?: Partial<StorageSystemOptions>): Promise<void>;
}

export async function storageLab(changes: Partial<StorageSystemOptions> = {}): Promise<StorageLab> {
  const directory = await reportDirectory();
  const folder = memoryFolder();
  const lines: LogLine[] = [];
  const clients: NbdClient[] = [];
  let service: Service | undefined;
  const start = async (more: Partial<StorageSystemOptions> = {}): Promise<Ready> => {
    const options = { ...storageOptions(`${folder.path}/data`, directory.url), ...changes, ...more };
    service = await startStorageSystem({ ...options, log: recordingLog(lines) });
    return Ready.parse(service.ready.document);
  };
  const stop = async (): Promise<void> => {
    for (const client of clients.splice(0)) client.wire.destroy();
    await service?.stop();
    service = undefined;
  };
  const ready = await start();
  const lab: StorageLab = {
    ...{ directory, folder: `${folder.path}/data`, log: lines, ready, client: clientOf(ready) },
    open: async (exportName) => {
      const client = await NbdClient.open(lab.ready.uri, exportName);
      clients.push(client);
      return client;
    },
    restart: async (meanwhile, more) => {
      await stop();
      await meanwhile?.();
      lab.ready = await start(more);
      lab.client = clientOf(lab.ready);
    },
    [Symbol.asyncDispose]: async () => {
      await stop();
      await directory[Symbol.asyncDispose]();
      await folder.remove();
    },
  };
  return lab;
}

/** The names that NBD_OPT_LIST brings. */
export async function listOf(uri: string): Promise<string[]> {
  const wire = await Wire.connect(addressOf(uri));
  await readGreeting(wire);
  wire.send(u32(3), optionRequest(Option.list));
  const names: string[] = [];
  for (;;) {
    const { type, data } = await readOptionReply(wire);
    if (type !== OptionReply.server) break;
    names.push(data.subarray(4, 4 + data.readUInt32BE(0)).toString());
  }
  wire.destroy();
  return names;
}
