/** Whether somebody listens where a role is going to: told before anything is started, and by its place in the topology. */

import { createServer } from 'node:net';
import { UsageError } from '../model/errors.ts';
import { formatSocketAddress, type SocketAddress } from '../model/socket-address.ts';
import { addressesOf, type Topology } from './topology.ts';

const RETRY_MS = 100;

/**
 * What an earlier cluster has left is given `patienceMs` to go: its roles stop when they notice that their
 * supervisor is gone. @throws UsageError
 */
export async function refusePortsInUse(topology: Topology, patienceMs: number): Promise<void> {
  const deadlineMs = performance.now() + patienceMs;
  for (const { path, address } of addressesOf(topology)) {
    while (await isInUse(address)) {
      if (performance.now() > deadlineMs) throw inUse(path, address);
      await new Promise((wake) => setTimeout(wake, RETRY_MS));
    }
  }
}

function inUse(path: readonly string[], address: SocketAddress): UsageError {
  return new UsageError(
    'address-in-use',
    `port ${address.port} is in use (${formatSocketAddress(address)}, for ${path.join('.')}): stop what listens ` +
      'there, or give other ports with --topology FILE',
  );
}

/** Only that is looked for here: the role itself tells best of anything else that is wrong with an address. */
function isInUse({ host, port }: SocketAddress): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code === 'EADDRINUSE'));
    probe.listen({ host, port, exclusive: true }, () => probe.close(() => resolve(false)));
  });
}
