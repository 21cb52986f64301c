/**
 * Two files of equal content behind one address: volary's gateway with two storage systems (and the directory, which is idle),
 * the same with one of them, and qemu-storage-daemon's quorum driver over a file of its own and one behind nbdkit.
 */

import { rm } from 'node:fs/promises';
import { VolumeName } from '../../src/control-protocol/names.ts';
import { layCluster } from '../support/cluster.ts';
import { allDuplex } from '../support/copies.ts';
import { freePort } from '../support/ports.ts';
import { eventually, requireTool, runOk } from '../support/tools.ts';
import type { StackName } from './jobs.ts';
import { type Folder, makeFullFile } from './places.ts';
import { accepts, startPeer } from './servers.ts';
import { type Candidate, fileBytes } from './speed.ts';

const volume = VolumeName.parse('bench');

/** `image` is a full file: the content that is served. */
export function startCopyStack(name: StackName, image: string, folder: Folder): Promise<Candidate> {
  if (name === 'quorum') return startQuorum(image, folder);
  return startVolary(name, image, folder);
}

async function startVolary(name: StackName, image: string, folder: Folder): Promise<Candidate> {
  const systems = name === 'one-copy' ? ['east-1'] : ['east-1', 'east-2'];
  const shape = {
    storage: Object.fromEntries(systems.map((system) => [system, { capacity: '8GiB' }])),
    gateways: { 'east-gw': {} },
  };
  const cluster = await layCluster(shape, { parent: folder.path });
  try {
    const storage = systems.map((system) => cluster.storage(system));
    const gateway = cluster.gateway('east-gw');
    await Promise.all([cluster.directory, gateway, ...storage].map((role) => role.start()));
    const copies = systems.slice(1).flatMap((system) => ['--copy', system]);
    await cluster.volary('volume', 'create', volume, '--size', '1GiB', '--segment', 'east-1', ...copies);
    await allDuplex(cluster, volume);
    await runOk(requireTool('nbdcopy', 'libnbd-bin'), ['--flush', image, cluster.uri(volume)]);
    await rm(image); // memory, where files are in /dev/shm
    const { segments } = await cluster.client.volume(volume);
    return {
      server: {
        name,
        pids: [gateway, ...storage].map((role) => role.pid()),
        uri: () => cluster.uri(volume),
        stop: () => cluster.end(),
      },
      files: segments.flatMap((segment) => segment.copies.map(({ file }) => file ?? '')),
    };
  } catch (error) {
    await cluster.end();
    throw error;
  }
}

async function startQuorum(local: string, folder: Folder): Promise<Candidate> {
  const remote = folder.file('quorum-remote.img');
  await makeFullFile(remote, fileBytes);
  const [port, backPort] = [await freePort(), await freePort()];
  const nbdkit = requireTool('nbdkit', 'nbdkit');
  const back = startPeer(nbdkit, ['-f', '-i', '127.0.0.1', '-p', String(backPort), 'file', remote]);
  await Promise.race([eventually('nbdkit file', () => accepts(backPort)), back.failure]);
  const server = `server.type=inet,server.host=127.0.0.1,server.port=${backPort}`;
  const quorum = 'vote-threshold=2,children.0=local,children.1=remote';
  const front = startPeer(requireTool('qemu-storage-daemon', 'qemu-system-x86'), [
    ...['--blockdev', `driver=file,node-name=local,filename=${local}`],
    ...['--blockdev', `driver=nbd,node-name=remote,${server}`],
    ...['--blockdev', `driver=quorum,node-name=both,${quorum}`],
    ...['--nbd-server', `addr.type=inet,addr.host=127.0.0.1,addr.port=${port}`],
    ...['--export', 'type=nbd,id=both,node-name=both,name=bench,writable=on'],
  ]);
  await Promise.race([eventually('qemu-storage-daemon', () => accepts(port)), front.failure]);
  return {
    server: {
      name: 'quorum',
      pids: [front.process.pid as number, back.process.pid as number],
      uri: () => `nbd://127.0.0.1:${port}/bench`,
      stop: async () => {
        await front.stop();
        await back.stop();
      },
    },
    files: [local, remote],
  };
}
