/** A directory as a process of its own, to be killed: `node directory-child.ts FOLDER PORT`. Prints its `ready` document. */

import { startDirectory } from '../../src/directory/service.ts';
import { createLogger } from '../../src/runtime/logger.ts';

const [dataFolder, port] = process.argv.slice(2);
if (dataFolder === undefined) throw new Error('directory-child.ts FOLDER PORT');
const service = await startDirectory({
  dataFolder,
  listen: { host: '127.0.0.1', port: Number(port) },
  log: createLogger({ VOLARY_LOG_LEVEL: process.env.VOLARY_LOG_LEVEL ?? 'warn' }),
});
process.stdout.write(`${JSON.stringify(service.ready.document)}\n`);
process.on('SIGTERM', () => {
  service.stop().then(() => process.exit(0));
});
