/** Ports that stay free until somebody listens there, and again while that process is being restarted. */

import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';

// Below what Linux takes for outgoing connections: none of those comes between two lives of a process.
const PORT_MIN = 20_000;
const PORT_MAX = 32_000;

const taken = new Set<number>();

/** Ports of 127.0.0.1 that nobody listens on, and that no other caller in this process gets. */
export async function takePorts(count: number): Promise<number[]> {
  const ports: number[] = [];
  while (ports.length < count) {
    const port = randomInt(PORT_MIN, PORT_MAX);
    if (taken.has(port) || !(await isFree(port))) continue;
    taken.add(port);
    ports.push(port);
  }
  return ports;
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.on('error', () => resolve(false));
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
  });
}

export async function freePort(): Promise<number> {
  const [port] = await takePorts(1);
  if (port === undefined) throw new Error('a port was taken');
  return port;
}
