/** What lies under Node's sockets: the descriptor, and how an accepted one comes to receive into memory that a server's connections share. */

import type { Socket } from 'node:net';
import { Socket as NetSocket } from 'node:net';

interface StreamHandle {
  readonly fd: number;
  reading: boolean;
  readStop(): void;
}

function handleOf(socket: Socket): StreamHandle {
  return (socket as unknown as { _handle: StreamHandle })._handle;
}

/** Of an open socket: for system calls that the stream does not offer. */
export function fileDescriptorOf(socket: Socket): number {
  return handleOf(socket).fd;
}

/** Leaves with the kernel what comes on a socket that another process has sent: such a one reads at once. */
export function leaveUnread(socket: Socket): void {
  const handle = handleOf(socket);
  handle.reading = false;
  handle.readStop();
}

/**
 * Takes over an accepted, paused socket so that it receives into `memory`: `onReceived` gets the number of bytes at
 * its start, and returns false to stop reading (`resume` goes on). Node offers this (`onread`) only for
 * sockets that it is told about when they are made; a new Socket around the accepted handle is such a one.
 */
export function takeOver(
  accepted: Socket,
  memory: Uint8Array,
  onReceived: (bytes: number) => boolean,
): { socket: Socket; fd: number } {
  const handle = handleOf(accepted);
  const options = {
    handle,
    allowHalfOpen: true,
    onread: { buffer: memory, callback: onReceived },
  };
  const socket = new NetSocket(options as unknown as ConstructorParameters<typeof NetSocket>[0]);
  return { socket, fd: handle.fd };
}
