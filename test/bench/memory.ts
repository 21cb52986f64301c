/**
 * How much memory a server takes for idle connections, and for writes that come faster than it can write; and
 * whether idle connections cost processor time, as polling that does not end would.
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Bench } from './bench.ts';
import { runFio } from './fio.ts';
import { limits, memory } from './jobs.ts';
import { type Folder, makeFullFile, newFolder, type PlaceName } from './places.ts';
import { processCpuSeconds, residentBytes } from './proc.ts';
import { libnbdScript, pythonCommand } from './python.ts';
import { type BenchServer, type ServerName, startServer } from './servers.ts';

export interface MemoryResult {
  readonly place: PlaceName;
  readonly server: ServerName;
  /** Resident without a connection, and with limits.idleConnections of them. */
  readonly freshBytes: number;
  readonly idleBytes: number;
  /** Processors' worth of work of the server while those connections are idle. */
  readonly idleCpu: number;
  /** The peak while 16 connections have 64 writes of 1 MiB each in flight. */
  readonly writingBytes: number;
  readonly writingMibPerSecond: number;
}

const fileBytes = 2 ** 30;
const idleMs = 1000;

export function memorySteps({ options }: Bench): number {
  return options.jobs.includes(memory) ? options.places.length * (1 + options.servers.length) : 0;
}

export async function measureMemory(bench: Bench): Promise<MemoryResult[]> {
  const { options } = bench;
  const results: MemoryResult[] = [];
  if (!options.jobs.includes(memory)) return results;
  for (const place of options.places) {
    const exported = newFolder(place);
    const scratch = newFolder(place);
    const file = exported.file('memory.img');
    try {
      await bench.step(`${place}: a file for ${memory}`, () => makeFullFile(file, fileBytes));
      for (const name of options.servers) {
        const result = await bench.step(`${place}: ${memory} of ${name}`, async () => ({
          place,
          server: name,
          ...(await withServer(name, file, idle)),
          ...(await withServer(name, file, (server) => writing(bench, server, scratch))),
        }));
        if (result !== undefined) results.push(result);
      }
    } finally {
      exported.remove();
      scratch.remove();
    }
  }
  return results;
}

/** Each measurement has a server of its own, whose memory nothing has grown before. */
async function withServer<T>(
  name: ServerName,
  file: string,
  measure: (server: BenchServer) => Promise<T>,
): Promise<T> {
  const server = await startServer(name, { file });
  try {
    return await measure(server);
  } finally {
    await server.stop();
  }
}

async function idle(
  server: BenchServer,
): Promise<{ freshBytes: number; idleBytes: number; idleCpu: number }> {
  const freshBytes = residentBytes(server.pid).now;
  const args = [libnbdScript('idle-connections.py'), server.uri(), String(limits.idleConnections)];
  const client = spawn(pythonCommand(), args, { stdio: ['pipe', 'pipe', 'pipe'] });
  let stderr = '';
  client.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const ended = once(client, 'close');
  const connected = once(client.stdout, 'data');
  await Promise.race([
    connected,
    ended.then(() => {
      throw new Error(`idle-connections.py: ${stderr}`);
    }),
  ]);
  const cpuBefore = processCpuSeconds(server.pid);
  await new Promise((wake) => setTimeout(wake, idleMs));
  const idleCpu = ((processCpuSeconds(server.pid) - cpuBefore) * 1000) / idleMs;
  const idleBytes = residentBytes(server.pid).now;
  client.stdin.end();
  await ended;
  return { freshBytes, idleBytes, idleCpu };
}

async function writing(
  bench: Bench,
  server: BenchServer,
  scratch: Folder,
): Promise<{ writingBytes: number; writingMibPerSecond: number }> {
  const section = 'writes-in-flight';
  const jobs = await runFio({
    file: 'memory.fio',
    sections: [section],
    seconds: bench.options.seconds,
    variables: { URI: server.uri() },
    folder: scratch.path,
  });
  return {
    writingBytes: residentBytes(server.pid).peak,
    writingMibPerSecond: jobs.get(section)?.mibPerSecond ?? 0,
  };
}
