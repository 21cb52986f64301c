/**
 * A gateway with what is behind it: volary's gateway and storage system (and the directory, which is idle), against nbdkit's
 * nbd plugin in front of nbdkit's file plugin. One volume, one file.
 */

import { VolumeName } from '../../src/control-protocol/names.ts';
import { layCluster } from '../support/cluster.ts';
import { freePort } from '../support/ports.ts';
import { eventually, requireTool, runOk } from '../support/tools.ts';
import type { StackName } from './jobs.ts';
import type { Folder } from './places.ts';
import { accepts, startPeer } from './servers.ts';
import type { Candidate } from './speed.ts';

const volume = VolumeName.parse('bench');

/** `image` is a full file: the content that is served. */
export function startGatewayStack(name: StackName, image: string, folder: Folder): Promise<Candidate> {
  return name === 'volary' ? startVolary(image, folder) : startNbdkit(image);
}

async function startVolary(image: string, folder: Folder): Promise<Candidate> {
  const shape = { storage: { 'east-1': { capacity: '8GiB' } }, gateways: { 'east-gw': {} } };
  const cluster = await layCluster(shape, { parent: folder.path });
  try {
    const storage = cluster.storage('east-1');
    const gateway = cluster.gateway('east-gw');
    await Promise.all([cluster.directory, storage, gateway].map((role) => role.start()));
    await cluster.volary('volume', 'create', volume, '--size', '1GiB');
    await runOk(requireTool('nbdcopy', 'libnbd-bin'), ['--flush', image, cluster.uri(volume)]);
    const file = (await cluster.client.volume(volume)).segments[0]?.copies[0]?.file;
    if (typeof file !== 'string') throw new Error('the volume has no file');
    return {
      server: {
        name: 'volary',
        pids: [gateway.pid(), storage.pid()],
        uri: () => cluster.uri(volume),
        stop: () => cluster.end(),
      },
      files: [file],
    };
  } catch (error) {
    await cluster.end();
    throw error;
  }
}

async function startNbdkit(file: string): Promise<Candidate> {
  const nbdkit = requireTool('nbdkit', 'nbdkit');
  const [port, backPort] = [await freePort(), await freePort()];
  const back = startPeer(nbdkit, ['-f', '-i', '127.0.0.1', '-p', String(backPort), 'file', file]);
  await Promise.race([eventually('nbdkit file', () => accepts(backPort)), back.failure]);
  const hop = ['hostname=127.0.0.1', `port=${backPort}`];
  const front = startPeer(nbdkit, ['-f', '-i', '127.0.0.1', '-p', String(port), 'nbd', ...hop]);
  await Promise.race([eventually('nbdkit nbd', () => accepts(port)), front.failure]);
  return {
    server: {
      name: 'nbdkit',
      pids: [front.process.pid as number, back.process.pid as number],
      uri: () => `nbd://127.0.0.1:${port}/`,
      stop: async () => {
        await front.stop();
        await back.stop();
      },
    },
    files: [file],
  };
}
