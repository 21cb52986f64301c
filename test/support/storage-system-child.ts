/**
 * A storage system in a process of its own, of which a test may say what its machine's boot id is:
 * `node storage-system-child.ts '{"name","dataFolder","directoryUrl","bootId"}'`. Prints what it prints when it is ready; ends at SIGTERM.
 */

import { StorageName } from '../../src/control-protocol/names.ts';
import { createLogger } from '../../src/runtime/logger.ts';
import { firstStopSignal } from '../../src/runtime/stop-signal.ts';
import { startStorageSystem } from '../../src/storage-system/service.ts';
import { storageOptions } from './storage-system.ts';

const { name, dataFolder, directoryUrl, bootId } = JSON.parse(process.argv[2] ?? '') as Record<
  string,
  string
>;
if (name === undefined || dataFolder === undefined || directoryUrl === undefined)
  throw new Error('what is it?');
const stopSignal = firstStopSignal();
const service = await startStorageSystem({
  ...storageOptions(dataFolder, directoryUrl),
  name: StorageName.parse(name),
  ...(bootId === undefined ? {} : { bootId }),
  log: createLogger(process.env),
});
process.stdout.write(`${JSON.stringify(service.ready.document)}\n`);
await stopSignal;
await service.stop();
