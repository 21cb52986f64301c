/**
 * The path of a unix socket, before a server listens on it. A server that was killed leaves its socket file behind;
 * it is taken away, but only after it has been seen that nobody answers there.
 */

import { existsSync, lstatSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname } from 'node:path';
import { UsageError } from '../model/errors.ts';

/** Makes sure that `path` can be listened on, as far as can be seen before trying. */
export async function makeRoomForSocket(path: string): Promise<void> {
  let stats: ReturnType<typeof lstatSync>;
  try {
    stats = lstatSync(path, { throwIfNoEntry: false });
  } catch {
    return; // listening will say what is wrong with the path
  }
  if (stats === undefined) {
    if (existsSync(dirname(path))) return;
    // Asked to listen there, Node says EACCES.
    throw new UsageError('not-found', `the folder of the socket ${path} does not exist: make it first`);
  }
  if (!stats.isSocket()) {
    throw new UsageError(
      'address-unavailable',
      `${path} is there and no socket: remove it, or choose another path`,
    );
  }
  const answer = await probe(path);
  if (answer === 'ECONNREFUSED') {
    rmSync(path, { force: true });
  } else if (answer === 'EACCES') {
    throw new UsageError(
      'permission-denied',
      `the socket ${path} belongs to somebody else: choose another path`,
    );
  } else if (answer !== 'ENOENT') {
    const text = `another server is listening on the socket ${path}: stop it, or choose another path`;
    throw new UsageError('address-in-use', text);
  }
}

/** The error of a connection attempt; undefined when somebody took it. */
function probe(path: string): Promise<string | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.once('connect', () => {
      socket.destroy();
      resolve(undefined);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code));
  });
}
