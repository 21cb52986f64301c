/**
 * docker/Dockerfile's image; and docker/compose.yaml as it is: the cluster as containers, used through its published ports by real
 * NBD clients. All in one engine, with one image.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { VolumeView } from '../../src/control-protocol/directory-api.ts';
import { type DockerEngine, startDockerEngine } from '../support/docker-engine.ts';
import { makeSparse, sameContent } from '../support/layout.ts';
import { volaryCommand } from '../support/server.ts';
import {
  eventually,
  type RunResult,
  requireTool,
  type TemporaryFolder,
  temporaryFolder,
} from '../support/tools.ts';
import { imageTests } from './image.ts';
import { buildVolaryImage, importBaseImage } from './volary-image.ts';

const MiB = 1024 * 1024;
/** Seven Node processes start at once, perhaps on a machine that does other things, too. */
const patienceMs = 120_000;
const project = 'cluster';
const storageSystems = ['east-1', 'east-2', 'west-1', 'west-2'];
const gateways = ['east-gw', 'west-gw'];
const services = ['directory', ...gateways, ...storageSystems];

let engine: DockerEngine;

beforeAll(async () => {
  engine = await startDockerEngine();
  await importBaseImage(engine);
  await buildVolaryImage(engine);
});

afterAll(() => engine?.stop());

describe('the image', () => {
  imageTests(() => engine);
});

describe('the cluster of compose.yaml', () => {
  const nbdinfo = requireTool('nbdinfo', 'libnbd-bin');
  const nbdcopy = requireTool('nbdcopy', 'libnbd-bin');
  const fio = requireTool('fio', 'fio');
  let folder: TemporaryFolder;

  beforeAll(async () => {
    folder = await temporaryFolder();
    // All services have one image, which is there already if compose builds it in the same way.
    await compose('build', 'directory');
    await up();
  });

  afterAll(() => folder?.remove());

  function compose(...args: string[]): Promise<string> {
    return engine.compose(['-f', 'docker/compose.yaml', '-p', project, ...args]);
  }

  /** The container of a service, whichever version of compose has named it. */
  function container(service: string): Promise<string> {
    return engine.docker(
      ...['ps', '--all', '--quiet', `--filter=label=com.docker.compose.service=${service}`],
    );
  }

  async function inspect(service: string, format: string): Promise<string> {
    return engine.docker('inspect', `--format={{${format}}}`, await container(service));
  }

  /** Starts what does not run, and waits until every container is healthy. */
  async function up(): Promise<void> {
    await compose('up', '--detach');
    await eventually(
      'all containers are healthy',
      async () => {
        const healthy = await engine.docker('ps', '--quiet', '--filter=health=healthy');
        return healthy.split('\n').length === services.length ? true : undefined;
      },
      patienceMs,
    ).catch(async (error: unknown) => {
      const state = await engine.docker('ps', '--all');
      throw new Error(`${state}\n${await compose('logs', '--tail=20')}`, { cause: error });
    });
  }

  /** bin/volary of the checkout, which asks the directory at its default address: the published port. */
  async function volary(...args: string[]): Promise<unknown> {
    const { stdout } = await engine.runOk(volaryCommand, [...args, '--json']);
    return JSON.parse(stdout);
  }

  /** Of the data folder of a service, on this machine. */
  function mountpoint(service: string): Promise<string> {
    return engine.docker('volume', 'inspect', '--format={{.Mountpoint}}', `${project}_${service}`);
  }

  /** A host writes a volume, whose bytes come to lie on that storage system. */
  async function startLoad(volume: string, storage: string) {
    const data = await mountpoint(storage);
    const usedMiB = async (): Promise<number> => {
      const { stdout } = await engine.runOk('du', ['--summarize', '--block-size=1M', data]);
      return Number.parseInt(stdout, 10);
    };
    let isOver = false;
    const options = { cwd: folder.path, timeoutMs: 2 * patienceMs };
    const end: Promise<RunResult> = engine
      .run(fio, verifiedWrites(`nbd://127.0.0.1:10809/${volume}`), options)
      .finally(() => {
        isOver = true;
      });
    const expectRunning = (): void => expect(isOver, 'the host has ended').toBe(false);
    /** So much more. */
    const written = async (mebibytes: number): Promise<void> => {
      const fromMiB = await usedMiB();
      await eventually(
        `${mebibytes} MiB are written`,
        async () => {
          expectRunning();
          return (await usedMiB()) >= fromMiB + mebibytes ? true : undefined;
        },
        patienceMs,
      );
    };
    return { end, expectRunning, written };
  }

  test('a volume over two sites: written through one gateway, read through the other', async () => {
    await volary(
      'volume',
      'create',
      'disk',
      '--size=96MiB',
      '--segment=east-1',
      '--segment=west-1',
      '--wait',
    );
    const [east, west] = ['nbd://127.0.0.1:10809/disk', 'nbd://127.0.0.1:10810/disk'];
    for (const uri of [east, west] as const) {
      const { stdout } = await engine.runOk(nbdinfo, ['--size', `${uri}`]);
      expect(Number(stdout)).toBe(96 * MiB);
    }

    // Data on both sides of the border, and across it.
    await makeSparse(folder.file('source.img'), 96 * MiB, [
      { offset: 0, length: 4096 },
      { offset: 40 * MiB, length: 16 * MiB },
      { offset: 95 * MiB, length: MiB },
    ]);
    await engine.runOk(nbdcopy, ['--flush', folder.file('source.img'), `${east}`]);
    await engine.runOk(nbdcopy, [`${west}`, folder.file('copy.img')]);
    await sameContent(folder.file('source.img'), folder.file('copy.img'));
  });

  test('the container of a storage system dies under I/O, then is killed and started by hand: the host waits, and goes on', async () => {
    await volary('volume', 'create', 'load', '--size=64MiB', '--segment=east-2', '--wait');
    const load = await startLoad('load', 'east-2');

    // As when it crashes: Docker starts it again by itself.
    await load.written(8);
    await engine.runOk('kill', ['-9', await inspect('east-2', '.State.Pid')]);
    await eventually(
      'Docker has started it again',
      async () => ((await inspect('east-2', '.RestartCount')) === '1' ? true : undefined),
      patienceMs,
    );

    await load.written(16);
    await engine.docker('kill', await container('east-2'));
    expect(await inspect('east-2', '.State.Running')).toBe('false');
    await sleep(2000);
    load.expectRunning();
    await engine.docker('start', await container('east-2'));
    expect(await load.end).toMatchObject({ code: 0 });
  });

  test('a volume with a copy: the container of its primary is killed, and failed over under I/O; later it is in step again', async () => {
    await volary('volume', 'create', 'twice', '--size=64MiB', '--segment=east-1', '--copy=west-1');
    await volary('copy', 'wait', 'twice', '--pair=duplex');
    const load = await startLoad('twice', 'west-1');
    await load.written(8);
    await engine.docker('kill', await container('east-1'));
    await volary('copy', 'failover', 'twice', 'west-1');
    await load.written(8);
    await engine.docker('start', await container('east-1'));
    expect(await load.end).toMatchObject({ code: 0 });
    await volary('copy', 'wait', 'twice', '--pair=duplex');
    const view = VolumeView.parse(await volary('volume', 'show', 'twice'));
    const copies = view.segments.flatMap((segment) => segment.copies);
    expect(copies.find(({ role }) => role === 'primary')?.storage).toBe('west-1');
    const files = copies.map(async ({ storage, file }) => {
      return `${await mountpoint(storage)}/${file?.replace('/data/', '')}`;
    });
    await engine.runOk('cmp', await Promise.all(files));
    await volary('volume', 'delete', 'twice', '--wait');
  });

  test('stopped, every role ends well; started again, it has its volumes', async () => {
    await compose('stop');
    for (const service of services) {
      expect(await inspect(service, '.State.ExitCode'), service).toBe('0');
    }
    await up();
    await engine.runOk(nbdcopy, ['nbd://127.0.0.1:10810/disk', folder.file('again.img')]);
    await sameContent(folder.file('source.img'), folder.file('again.img'));
    // For this the directory asks every gateway whether hosts use the volume.
    await volary('volume', 'delete', 'disk', '--wait');
    expect(await volary('volume', 'list')).toMatchObject([{ name: 'load' }]);
  });

  test('taken down, nothing of it is left in the engine', async () => {
    await compose('down', '--volumes');
    expect(await engine.docker('ps', '--all', '--quiet')).toBe('');
    expect(await engine.docker('volume', 'ls', '--quiet')).toBe('');
    expect((await engine.docker('network', 'ls', '--format={{.Name}}')).split('\n').sort()).toEqual([
      ...['bridge', 'host', 'none'],
    ]);
  });
});

/** Every block once, at a pace that leaves time to kill something; then all are read and checked. */
function verifiedWrites(uri: string): string[] {
  return [
    ...['--name=load', '--ioengine=nbd', `--uri=${uri}`, '--rw=randwrite', '--bs=4k', '--size=64m'],
    ...['--iodepth=16', '--rate_iops=,2000', '--fsync=256', '--randseed=20261121'],
    ...['--verify=crc32c', '--do_verify=1', '--verify_fatal=1', '--verify_state_save=0'],
  ];
}
