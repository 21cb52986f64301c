import type { Volume } from '../../src/model/volume.ts';
import { openRemoteVolume, type RemoteVolumeOptions } from '../../src/nbd-client/remote-volume.ts';
import { silentLog } from '../support/log.ts';
import { lab } from '../unit/nbd/lab.ts';
import { outcomeOf } from './model-run.ts';
import type { Subject } from './volume-contract.ts';

/**
 * A RemoteVolume of an NbdServer in this process, around the volume. One connection, unless the options say more: a
 * volume that several connections use cannot be made smaller.
 */
export async function remoteVolumeOf(
  inner: Volume,
  options: Partial<RemoteVolumeOptions> = {},
): Promise<Subject> {
  const server = await lab(inner);
  const volume = await openRemoteVolume({
    address: server.address,
    exportName: 'disk',
    log: silentLog,
    connections: 1,
    ...options,
  });
  return {
    volume,
    dispose: async () => {
      await volume.close();
      await outcomeOf(server.server.stop()); // a failed volume cannot be flushed at the end
      await inner.close();
    },
  };
}
