/** The tests' own Docker engine meets nothing of this machine's, and leaves nothing there. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, describe, expect, onTestFinished, test } from 'vitest';
import { type DockerEngine, startDockerEngine } from '../support/docker-engine.ts';
import { eventually, requireTool, temporaryFolder } from '../support/tools.ts';

describe("the tests' Docker engine", () => {
  let engine: DockerEngine | undefined;

  afterEach(async () => {
    await engine?.stop();
    engine = undefined;
  });

  test('1, 2: with a container that runs, the machine has none of its mounts and networks; stopped, none of its processes', async () => {
    engine = await startDockerEngine();
    await startContainer(engine);
    const namespace = await namespaceOf(engine);
    expect(processesIn(namespace).length).toBeGreaterThan(3);

    expect(readFileSync('/proc/self/mounts', 'utf8')).not.toContain('/run/engine');
    expect(Object.keys(networkInterfaces())).not.toContain('docker0');

    await engine.stop();
    engine = undefined;
    expect(processesIn(namespace)).toEqual([]);
  });

  test('2: when the tests are killed, the engine and its containers end, too', async () => {
    const folder = await temporaryFolder();
    const child = spawn(process.execPath, ['--input-type=module', '--eval', engineAndNoEnd()], {
      env: { ...process.env, TMPDIR: folder.path },
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    onTestFinished(async () => {
      child.kill('SIGKILL');
      await folder.remove();
    });
    const [namespace] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
    expect(processesIn(namespace).length).toBeGreaterThan(1);
    child.kill('SIGKILL');
    await eventually('nothing of the engine runs', () =>
      processesIn(namespace).length === 0 ? true : undefined,
    );
  });
});

/** Starts an engine in another process, tells its namespace, and never ends. */
function engineAndNoEnd(): string {
  const module = JSON.stringify(`${import.meta.dirname}/../support/docker-engine.ts`);
  return `
    const { startDockerEngine } = await import(${module});
    const engine = await startDockerEngine();
    process.stdout.write((await engine.runOk('readlink', ['/proc/self/ns/pid'])).stdout);
    setInterval(() => {}, 60_000);
  `;
}

/** From an image that is busybox alone. */
async function startContainer(engine: DockerEngine): Promise<void> {
  const busybox = requireTool('busybox', 'busybox-static');
  const importBusybox = 'tar --create --directory="$0" busybox | docker import - busybox';
  await engine.runOk('sh', ['-c', importBusybox, dirname(busybox)]);
  await engine.docker('run', '--detach', '--volume=files:/files', 'busybox', '/busybox', 'sleep', '600');
}

async function namespaceOf(engine: DockerEngine): Promise<string> {
  return (await engine.runOk('readlink', ['/proc/self/ns/pid'])).stdout.trim();
}

/** Process ids of this machine's processes that are in a PID namespace, the ones nested in it left out. */
function processesIn(namespace: string): string[] {
  return readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      return readlinkSync(`/proc/${pid}/ns/pid`) === namespace;
    } catch (error) {
      // It has ended meanwhile, or is of a user whose processes even root may not look into here.
      const code = error instanceof Error && 'code' in error ? error.code : undefined;
      if (code === 'ENOENT' || code === 'ESRCH' || code === 'EACCES') return false;
      throw error;
    }
  });
}
