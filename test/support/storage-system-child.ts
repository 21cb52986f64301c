/**
 * A storage system as a process of its own: `node storage-system-child.ts OPTIONS`, where OPTIONS is the JSON of what
 * startStorageSystem takes, without the log. Prints its ready document; ends at SIGTERM.
 */

import { createLogger } from '../../src/runtime/logger.ts';
import { firstStopSignal } from '../../src/runtime/stop-signal.ts';
import { type StorageSystemOptions, startStorageSystem } from '../../src/storage-system/service.ts';

const given = JSON.parse(process.argv[2] ?? '') as Omit<StorageSystemOptions, 'log'>;
const stopAsked = firstStopSignal();
const service = await startStorageSystem({ ...given, log: createLogger(process.env) });
process.stdout.write(`${JSON.stringify(service.ready.document)}\n`);
await stopAsked;
await service.stop();
