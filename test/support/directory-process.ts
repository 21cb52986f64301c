/** A directory in a process of its own. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { DirectoryClient } from '../../src/control-protocol/directory-client.ts';

const CHILD = fileURLToPath(new URL('directory-child.ts', import.meta.url));

export interface DirectoryProcess {
  readonly directory: DirectoryClient;
  readonly pid: number;
  /** kill -9 */
  kill(): Promise<void>;
  /** SIGTERM. @returns the exit status */
  stop(): Promise<number | null>;
}

/** `port` 0 takes a free one. */
export async function startDirectoryProcess(folder: string, port: number): Promise<DirectoryProcess> {
  const child = spawn(process.execPath, [CHILD, folder, String(port)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const line = await firstLine(child);
  const { directory } = JSON.parse(line) as { directory: string };
  return {
    directory: new DirectoryClient(directory),
    pid: child.pid ?? 0,
    kill: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const exited = once(child, 'exit');
      child.kill('SIGKILL');
      await exited;
    },
    stop: async () => {
      const exited = once(child, 'exit');
      child.kill('SIGTERM');
      const [status] = (await exited) as [number | null];
      return status;
    },
  };
}

async function firstLine(child: ChildProcess): Promise<string> {
  let text = '';
  for await (const chunk of child.stdout ?? []) {
    text += String(chunk);
    if (text.includes('\n')) return text;
  }
  throw new Error('the directory ended before it was ready');
}
