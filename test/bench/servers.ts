/**
 * The servers that are compared, each started in its usual way on a TCP port of its own. All three answer for
 * one file; those that can serve a folder answer for each file in it, by its name.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { connect } from 'node:net';
import { basename } from 'node:path';
import { freePort } from '../support/ports.ts';
import { startServe } from '../support/server.ts';
import { eventually, requireTool } from '../support/tools.ts';
import type { StackName } from './jobs.ts';
import { executable } from './proc.ts';

export const serverNames = ['volary', 'nbdkit', 'qemu-nbd'] as const;
export type ServerName = (typeof serverNames)[number];

/** What a speed job runs against. */
export interface Loadable {
  readonly name: StackName;
  /** All its processes. */
  readonly pids: readonly number[];
  /** Without an export's name: the one that there is. */
  uri(exportName?: string): string;
  stop(): Promise<void>;
}

export interface BenchServer extends Loadable {
  readonly name: ServerName;
  readonly pid: number;
  /** From the start of the program to `ready` (volary) or to the first accepted connection (the others). */
  readonly readyMs: number;
}

export type Served = { readonly file: string } | { readonly folder: string };

export function servesFolders(name: ServerName): boolean {
  return name !== 'qemu-nbd';
}

export async function startServer(name: ServerName, served: Served): Promise<BenchServer> {
  const port = await freePort();
  const uri = (exportName = ''): string => `nbd://127.0.0.1:${port}/${exportName}`;
  const before = performance.now();
  if (name === 'volary') {
    const path = 'file' in served ? served.file : served.folder;
    const server = await startServe([path, '--listen', `nbd://127.0.0.1:${port}`]);
    const readyMs = performance.now() - before;
    const pid = server.process.pid as number;
    // Processor time and memory are read by process id: a launcher in between would hide the server's.
    if (basename(executable(pid)) !== 'node') throw new Error(`bin/volary: process ${pid} is not Node`);
    return { name, pid, pids: [pid], readyMs, uri, stop: async () => void (await server.stop()) };
  }
  const [command, args] = peerCommand(name, served, port);
  const peer = startPeer(command, args);
  const opened = eventually(`${name} on port ${port}`, () => accepts(port));
  await Promise.race([opened, peer.failure]);
  const readyMs = performance.now() - before;
  const pid = peer.process.pid as number;
  return { name, pid, pids: [pid], readyMs, uri, stop: peer.stop };
}

function peerCommand(name: 'nbdkit' | 'qemu-nbd', served: Served, port: number): [string, string[]] {
  if (name === 'nbdkit') {
    const what = 'file' in served ? served.file : `dir=${served.folder}`;
    return [requireTool('nbdkit', 'nbdkit'), ['-f', '-i', '127.0.0.1', '-p', String(port), 'file', what]];
  }
  if (!('file' in served)) throw new Error('qemu-nbd serves no folders');
  const cache = ['--cache=writeback', '--aio=threads', '--discard=unmap'];
  const place = ['-b', '127.0.0.1', '-p', String(port)];
  // -e: as many connections as the memory test opens.
  const args = ['-f', 'raw', '-t', '-x', '', '-e', '256', ...cache, ...place, served.file];
  return [requireTool('qemu-nbd', 'qemu-utils'), args];
}

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

interface Peer {
  readonly process: ChildProcess;
  /** Rejects when the program ends; never resolves. */
  readonly failure: Promise<never>;
  stop(): Promise<void>;
}

export function startPeer(command: string, args: readonly string[]): Peer {
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  running.add(child);
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
  const failure = new Promise<never>((_resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      running.delete(child);
      reject(new Error(`${basename(command)} ended (code ${code}, signal ${signal}): ${stderr}`));
    });
  });
  // Nobody waits for it once the server is up; a server that dies then makes fio fail, which says so.
  failure.catch(() => undefined);
  const stop = (): Promise<void> => {
    child.kill('SIGTERM');
    return ended;
  };
  return { process: child, failure, stop };
}

/** True when something accepts connections on the port; undefined when not (yet). */
export function accepts(port: number): Promise<true | undefined> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(undefined));
  });
}
