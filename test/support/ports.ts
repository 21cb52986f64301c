/** Ports that stay free until somebody listens there, and again while that process is being restarted. */

import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';

// Below what Linux takes for outgoing connections: none of those comes between two lives of a process.
const PORT_MIN = 20_000;
const PORT_MAX = 32_000;

// Test files that run side by side each have their own share.
const SHARES = 4;
const SHARE_PORTS = (PORT_MAX - PORT_MIN) / SHARES;
const shareMin = PORT_MIN + (Number(process.env.VITEST_POOL_ID ?? 0) % SHARES) * SHARE_PORTS;

const taken = new Set<number>();

/** Ports of 127.0.0.1 that nobody listens on, and that no other caller gets, in whichever test file. */
export async function takePorts(count: number): Promise<number[]> {
  const ports: number[] = [];
  while (ports.length < count) {
    const port = randomInt(shareMin, shareMin + SHARE_PORTS);
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

/** One of those. */
export async function freePort(): Promise<number> {
  const [port] = await takePorts(1);
  if (port === undefined) throw new Error('a port was taken');
  return port;
}
