/**
 * The work of `volary serve`.
 *
 * Everything is opened and locked before anything listens, and nothing is "ready" before all of it listens. A
 * file that was made on the way stays when something else then fails: it is what was asked for, the same command
 * takes it up again, and what somebody may have seen is not taken away from them.
 */

import { type ExportDirectory, type NbdExport, NbdServer } from '../nbd/server.ts';
import { listenNbd } from '../runtime/listen.ts';
import { createLogger } from '../runtime/logger.ts';
import { keepPoolFromInterrupting } from '../runtime/pool-threads.ts';
import { firstStopSignal } from '../runtime/stop-signal.ts';
import { openSparseFile } from '../storage/open-sparse-file.ts';
import { findExportFiles } from './export-files.ts';
import type { Output } from './output.ts';
import type { ServeOptions } from './serve.ts';

/** Serves until a signal asks it to stop. */
export async function serveFiles(options: ServeOptions, output: Output): Promise<void> {
  const log = createLogger(process.env);
  const stopAsked = firstStopSignal();
  const { readOnly, sizeBytes, busyPollUs } = options;
  const exports: NbdExport[] = [];
  const server = new NbdServer({
    exports: directoryOf(exports),
    log,
    ...(busyPollUs === undefined ? {} : { busyPollUs }),
  });
  await keepPoolFromInterrupting();
  try {
    for (const { name, path } of findExportFiles(options.paths, options.name)) {
      const volume = await openSparseFile(path, {
        readOnly,
        ...(sizeBytes === undefined ? {} : { sizeBytes }),
        onFailed: (reason) => log.error({ export: name, path, reason }, 'export failed'),
      });
      exports.push({ name, volume, readOnly });
    }
    const uris: string[] = [];
    for (const address of options.listen) uris.push(await listenNbd(server, address));
    log.info({ uris, exports: exports.map(({ name }) => name) }, 'listening');
    output.result({ ready: true, uris }, `ready ${uris.join(' ')}`);
    log.info({ signal: await stopAsked }, 'stopping');
  } finally {
    try {
      await server.stop();
    } finally {
      await Promise.all(exports.map(({ volume }) => volume.close()));
    }
  }
  log.info({}, 'stopped');
}

/** Each export under its name, and the first under the empty one too. */
function directoryOf(exports: readonly NbdExport[]): ExportDirectory {
  return {
    list: () => exports,
    find: (wanted) => (wanted === '' ? exports[0] : exports.find(({ name }) => name === wanted)),
  };
}
