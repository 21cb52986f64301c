/** docker/Dockerfile on a real engine: what is in the image, who it runs as, and that it serves. */

import { expect, test } from 'vitest';
import type { DockerEngine } from '../support/docker-engine.ts';
import { eventually, requireTool } from '../support/tools.ts';

const MiB = 1024 * 1024;

/** Of the image `volary` in the engine that there is when they run. */
export function imageTests(engineOfThem: () => DockerEngine): void {
  const nbdinfo = requireTool('nbdinfo', 'libnbd-bin');

  test('says what it is, and is nobody', async () => {
    const [image] = JSON.parse(await engineOfThem().docker('image', 'inspect', 'volary')) as [
      { Config: object },
    ];
    expect(image.Config).toMatchObject({
      User: '1000:1000',
      WorkingDir: '/data',
      Volumes: { '/data': {} },
      ExposedPorts: { '9800/tcp': {}, '10809/tcp': {} },
      Entrypoint: ['/opt/volary/bin/volary'],
      Labels: {
        'org.opencontainers.image.title': 'volary',
        'org.opencontainers.image.licenses': 'Apache-2.0',
        'org.opencontainers.image.base.name': 'node:24-bookworm-slim',
      },
    });
  });

  test('holds what runs, and nothing that its user could change', async () => {
    const inside = (script: string) =>
      engineOfThem().docker('run', '--rm', '--entrypoint', 'sh', 'volary', '-c', script);
    expect((await inside('ls /opt/volary')).split('\n')).toEqual([
      ...['LICENSE', 'bin', 'compiled', 'node_modules', 'package.json', 'src'],
    ]);
    const packages = await inside('ls /opt/volary/node_modules');
    expect(packages.split('\n')).toContain('koffi');
    expect(packages).not.toMatch(/^(typescript|vitest|node-linux-\w+)$/m);
    expect(
      await inside('for path in / /opt/volary/* /data; do if [ -w "$path" ]; then echo "$path"; fi; done'),
    ).toBe('/data');
  });

  test('serves a volume of Docker on a published port, with a read-only root and no capabilities', async () => {
    const container = await engineOfThem().docker(
      ...['run', '--detach', '--read-only', '--cap-drop=ALL', '--volume=disks:/data'],
      ...['--publish=127.0.0.1:10809:10809', 'volary'],
      ...['serve', 'disk.img', '--size=64MiB', '--listen=nbd://0.0.0.0:10809', '--json'],
    );
    await eventually('the server is ready', async () =>
      (await engineOfThem().docker('logs', container)).includes('"ready":true') ? true : undefined,
    );
    const { stdout } = await engineOfThem().runOk(nbdinfo, ['--size', 'nbd://127.0.0.1:10809/disk.img']);
    expect(Number(stdout)).toBe(64 * MiB);

    await engineOfThem().docker('stop', container);
    expect(await engineOfThem().docker('inspect', '--format={{.State.ExitCode}}', container)).toBe('0');
    await engineOfThem().docker('rm', container);
    await engineOfThem().docker('volume', 'rm', 'disks');
  });
}
