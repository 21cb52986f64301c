/**
 * A server whose volume takes no write until SIGUSR2: everything that clients send stays in flight. Speaks as
 * `volary serve --json` does, so that it is started and stopped in the same way.
 */

import { NbdServer } from '../../src/nbd/server.ts';
import { silentLog } from '../support/log.ts';
import { DelayVolume, Gate } from '../support/volumes/delay-volume.ts';
import { MemoryVolume } from '../support/volumes/memory-volume.ts';

const gate = new Gate();
gate.shut('write');
const volume = new DelayVolume(new MemoryVolume(Buffer.alloc(8 * 1024 * 1024)), gate.delay);
const nbdExport = { name: 'held', volume };
const server = new NbdServer({
  exports: { list: () => [nbdExport], find: () => nbdExport },
  log: silentLog,
});
const address = await server.listen({ host: '127.0.0.1', port: 0 });
if (!('port' in address)) throw new Error('listens on no port');
process.on('SIGUSR2', () => gate.open());
process.on('SIGTERM', () => {
  void server.stop().then(() => process.exit(0));
});
console.log(JSON.stringify({ ready: true, uris: [`nbd://127.0.0.1:${address.port}`] }));
