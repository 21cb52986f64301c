/** Listening on an address that a person chose; what is in the way is told with what to do about it. */

import { UsageError, type UsageErrorCode } from '../model/errors.ts';
import { formatListenUri, type ListenAddress } from '../model/nbd-uri.ts';
import { makeRoomForSocket } from './unix-socket.ts';

const explanations: Record<string, [UsageErrorCode, string]> = {
  EADDRINUSE: [
    'address-in-use',
    'another program is listening there: stop it, or give another address with --listen',
  ],
  EADDRNOTAVAIL: ['address-unavailable', 'this machine does not have that address: give one that it has'],
  EAFNOSUPPORT: ['address-unavailable', 'this machine does not have that kind of address: give another'],
  ENOTFOUND: ['address-unavailable', 'no such host is known: correct the name, or give an address'],
  EAI_AGAIN: ['address-unavailable', 'the name cannot be looked up now: give an address instead'],
  EACCES: [
    'permission-denied',
    'no permission: take a port from 1024 on, or a socket in a folder that you may write to',
  ],
  EPERM: [
    'permission-denied',
    'no permission: take a port from 1024 on, or a socket in a folder that you may write to',
  ],
  ENOTDIR: ['not-found', 'the path leads through something that is no folder: correct it'],
  EROFS: ['read-only-filesystem', 'the folder of the socket is on a read-only file system: choose another'],
  ENOSPC: ['no-space', 'there is no space left for the socket: free some, or choose another folder'],
};

/** Makes an NBD server listen. @returns the URI of where it does now. @throws UsageError */
export async function listenNbd(
  server: { listen(address: ListenAddress): Promise<ListenAddress> },
  address: ListenAddress,
): Promise<string> {
  try {
    if ('path' in address) await makeRoomForSocket(address.path);
    return formatListenUri(await server.listen(address));
  } catch (error) {
    throw explained(formatListenUri(address), error);
  }
}

/** Makes an HTTP server listen. @returns the URL of where it does now. @throws UsageError */
export async function listenHttp(
  server: { listen(address: { host: string; port: number }): Promise<string> },
  { host, port }: { readonly host: string; readonly port: number },
): Promise<string> {
  try {
    return await server.listen({ host, port });
  } catch (error) {
    throw explained(`http://${host}:${port}`, error);
  }
}

function explained(where: string, error: unknown): unknown {
  const { code } = error as NodeJS.ErrnoException;
  const known = error instanceof UsageError || code === undefined ? undefined : explanations[code];
  if (known === undefined) return error;
  return new UsageError(known[0], `cannot listen on ${where}: ${known[1]}`, { cause: error });
}
