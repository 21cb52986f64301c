/** How a primary gets a link: the socket, the hello on it, and the answer to that. */

import { connect } from 'node:net';
import { fileDescriptorOf } from '../base/socket-handle.ts';
import { formatSocketAddress, type SocketAddress } from '../model/socket-address.ts';
import { PeerError } from './errors.ts';
import { received } from './frame-socket.ts';
import type { Connected } from './links.ts';
import type { Hello } from './messages.ts';
import { PrimaryEnd } from './primary-end.ts';

export interface ConnectOptions {
  readonly address: SocketAddress;
  readonly hello: Omit<Hello, 'kind'>;
  /** From the first packet to the last word of the answer. */
  readonly timeoutMs: number;
  readonly signal: AbortSignal;
}

const KEEP_ALIVE_MS = 10_000;

/**
 * The link is the caller's from then on: `signal` concerns it no more.
 * @throws PeerError 'unreachable', 'silent', 'ended' (by the signal), or what was wrong with the answer
 */
export function connectToPeer({ address, hello, timeoutMs, signal }: ConnectOptions): Promise<Connected> {
  const where = formatSocketAddress(address);
  return new Promise((resolve, reject) => {
    let end: PrimaryEnd | undefined;
    let isSettled = false;
    const settle = (outcome: Connected | PeerError): void => {
      if (isSettled) return;
      isSettled = true;
      clearTimeout(timer);
      signal.removeEventListener('abort', aborted);
      if (!(outcome instanceof PeerError)) resolve(outcome);
      else reject(new PeerError(outcome.code, `${where}: ${outcome.message}`, { cause: outcome }));
    };
    const giveUp = (reason: PeerError): void => {
      settle(reason);
      if (end === undefined) socket.destroy();
      else end.fail(reason);
    };
    const aborted = (): void => giveUp(new PeerError('ended', 'given up'));
    const timer = setTimeout(() => giveUp(new PeerError('silent', 'no answer')), timeoutMs);
    signal.addEventListener('abort', aborted);
    const socket = connect({
      ...address,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: KEEP_ALIVE_MS,
      onread: {
        buffer: received,
        callback: (bytes) => {
          end?.received(bytes);
          return true;
        },
      },
    });
    socket.on('connect', () => {
      end = new PrimaryEnd(socket, fileDescriptorOf(socket), { kind: 'hello', ...hello }, settle);
    });
    socket.on('error', (error) => {
      if (end === undefined) giveUp(new PeerError('unreachable', error.message, { cause: error }));
    });
    if (signal.aborted) aborted();
  });
}
