/** What moves data in a gateway: the NBD server that hosts come to, and the volumes behind it. One in a process. */

import type { DirectoryClient } from '../control-protocol/directory-client.ts';
import { type GatewayName, SECTOR_BYTES, type VolumeName } from '../control-protocol/names.ts';
import { ControlError, type ControlErrorCode, VolumeError, type VolumeErrorCode } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import { type ListenAddress, NbdServer } from '../nbd/server.ts';
import { type Figures, VolumeExports } from './exports.ts';
import type { Knowledge } from './knowledge.ts';

/** How long hosts may take to be drained, and when storage systems are not waited for any more: of what is left, nothing is flushed. */
const DRAIN_MS = 7_000;
const STOP_MS_MAX = 10_000;

export interface DataPlaneOptions {
  readonly knowledge: Knowledge;
  readonly grow: (name: VolumeName, sizeBytes: number) => Promise<void>;
  /** Never rejects. */
  readonly logIn: (name: VolumeName) => Promise<void>;
  readonly connections: number;
  readonly reconnectMs: number;
  readonly log: Log;
}

/** What hosts come to: this process, or workers. */
export interface Front {
  listen(address: ListenAddress): Promise<ListenAddress>;
  hostsOf(name: string): number | Promise<number>;
  figures(): Figures;
  /** Drains the hosts, flushes, lets go of the storage systems; all of it within STOP_MS_MAX. */
  stop(): Promise<void>;
}

export interface DataPlane extends Front {
  readonly server: NbdServer;
  readonly exports: VolumeExports;
}

export function createDataPlane(options: DataPlaneOptions): DataPlane {
  const exports = new VolumeExports(options);
  const server = new NbdServer({ exports, log: options.log, drainMs: DRAIN_MS });
  exports.servedBy(server);
  return {
    server,
    exports,
    listen: (address) => server.listen(address),
    hostsOf: (name) => exports.hostsOf(name),
    figures: () => exports.figures(),
    stop: async () => {
      const patience = setTimeout(
        () => exports.giveUp('the gateway stops, and waits no longer'),
        STOP_MS_MAX,
      );
      try {
        await server.stop();
      } finally {
        await exports.stop();
        clearTimeout(patience);
      }
    },
  };
}

/** What a host is told when its wish for another size comes to nothing. */
const CODE_OF: Partial<Record<ControlErrorCode, VolumeErrorCode>> = {
  'no-space': 'no-space',
  'bad-request': 'invalid',
  'not-supported': 'not-supported',
};

/** How long a host waits for another size. */
const GROW_MS_MAX = 60_000;

/** `grow` by the directory's operation. */
export function growAt(directory: DirectoryClient): DataPlaneOptions['grow'] {
  return async (name, sizeBytes) => {
    if (sizeBytes % SECTOR_BYTES !== 0) {
      throw new VolumeError('invalid', `the size of a volume is a multiple of ${SECTOR_BYTES} bytes`);
    }
    try {
      const { id } = await directory.resizeVolume(name, { sizeBytes });
      const { state, error } = await directory.finished(id, GROW_MS_MAX);
      if (state === 'done') return;
      const why = error?.message ?? 'the directory has not done it yet';
      throw new VolumeError(error?.code === 'no-space' ? 'no-space' : 'io', why);
    } catch (error) {
      if (!(error instanceof ControlError)) throw error;
      throw new VolumeError(CODE_OF[error.code] ?? 'io', error.message, { cause: error });
    }
  };
}

/** `logIn` of that gateway: a host served from far is better than none, so what fails is merely told. */
export function logInAt(
  directory: DirectoryClient,
  gateway: GatewayName,
  log: Log,
): DataPlaneOptions['logIn'] {
  return async (volume) => {
    try {
      await directory.login(volume, { gateway });
    } catch (error) {
      if (!(error instanceof ControlError)) throw error;
      log.warn({ volume, error: error.message }, 'no log-in: the volume is served from where its primary is');
    }
  };
}
