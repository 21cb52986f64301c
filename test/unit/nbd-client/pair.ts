/** A scripted server, and a volume that has all its connections to it. */

import {
  openRemoteVolume,
  type RemoteState,
  type RemoteVolume,
  type RemoteVolumeOptions,
} from '../../../src/nbd-client/remote-volume.ts';
import { silentLog } from '../../support/log.ts';
import { eventually } from '../../support/tools.ts';
import { MULTI, type Script, ScriptedServer } from './scripted-server.ts';

export async function open(
  server: ScriptedServer,
  options: Partial<RemoteVolumeOptions> = {},
): Promise<RemoteVolume> {
  const { address } = server;
  return openRemoteVolume({ address, exportName: 'disk', reconnectMs: 20_000, log: silentLog, ...options });
}

export async function pair(script: Script, options: Partial<RemoteVolumeOptions> = {}) {
  const server = await new ScriptedServer(script).start();
  const states: RemoteState[] = [];
  const volume = await open(server, { ...options, onState: (state) => states.push(state) });
  const wanted = script.transmissionFlags === MULTI ? (options.connections ?? 4) : 1;
  const allThere = () =>
    eventually('all connections', () => (volume.liveConnections === wanted ? true : undefined));
  await allThere();
  return {
    server,
    volume,
    states,
    allThere,
    [Symbol.asyncDispose]: async () => {
      server.script.answer = () => undefined;
      await volume.close();
      await server.stop();
    },
  };
}
