/**
 * One attempt to get a connection: the socket, and the handshake on it. Ends in exactly one of `ready` and `failed`,
 * unless it is given up before. From `ready` on the socket is the receiver's.
 */

import { connect, type Socket } from 'node:net';
import { VolumeError } from '../model/errors.ts';
import { ClientHandshake } from '../nbd-server-protocol/client-handshake.ts';
import { BASE_ALLOCATION, type HeaderStyle } from '../nbd-server-protocol/constants.ts';
import type { ReceiveArea } from '../nbd-server-protocol/receive-area.ts';
import type { ClientSession } from '../nbd-server-protocol/session.ts';
import { errorOfHandshake } from './errors.ts';

export type RemoteAddress = { readonly host: string; readonly port: number } | { readonly path: string };

/** Where an export is. */
export interface RemoteTarget {
  readonly address: RemoteAddress;
  /** '' is the default export. */
  readonly exportName: string;
  /**
   * The same export, by the name under which it is given only when nothing is on its way to it any more that was sent to another target,
   * or by another user, but straight to it. Without it nobody can say so, and nobody is asked.
   */
  readonly aloneName?: string;
  /** How it is called in messages, where the export's name is long, or nobody's business. */
  readonly description?: string;
}

export interface DialOptions extends RemoteTarget {
  /** The best style to ask for. */
  readonly headerStyle: HeaderStyle;
  /** How long a server may take to answer. */
  readonly timeoutMs: number;
  readonly area: ReceiveArea;
}

/** Who has a socket after the handshake. */
export interface Receiver {
  /** That many bytes are in the area. */
  received(bytes: number): void;
  /** Nothing more comes, and nothing can be sent. May be called more than once. */
  ended(error: Error | undefined): void;
}

export interface DialOutcome {
  ready(socket: Socket, session: ClientSession, rest: Buffer): Receiver;
  failed(error: VolumeError): void;
}

/** How a server is called in messages. */
export function serverText({ address, exportName, description }: RemoteTarget): string {
  const where = 'path' in address ? address.path : `${address.host}:${address.port}`;
  if (description !== undefined) return `${description} at ${where}`;
  return `the NBD server at ${where}, export ${JSON.stringify(exportName)}`;
}

export function isSameTarget(one: RemoteTarget, other: RemoteTarget): boolean {
  if (one.exportName !== other.exportName) return false;
  if ('path' in one.address) return 'path' in other.address && one.address.path === other.address.path;
  if ('path' in other.address) return false;
  return one.address.host === other.address.host && one.address.port === other.address.port;
}

const KEEP_ALIVE_MS = 10_000;

/** Returns how to give up, which then ends in neither outcome. */
export function dial(options: DialOptions, outcome: DialOutcome): () => void {
  const { address, area, timeoutMs } = options;
  const handshake = new ClientHandshake({
    kind: 'connect',
    exportName: options.exportName,
    headerStyle: options.headerStyle,
    metaContexts: [BASE_ALLOCATION],
    requestBlockSizes: true,
    useGo: true,
  });
  let receiver: Receiver | undefined;
  let over = false;
  let failure: Error | undefined;

  const end = (): void => {
    over = true;
    clearTimeout(timer);
  };
  const fail = (error: VolumeError): void => {
    if (over) return;
    end();
    socket.destroySoon(); // the last word of the handshake may still be on its way
    outcome.failed(error);
  };
  const advance = (): void => {
    while (!over) {
      const step = handshake.next();
      if (step.kind === 'need-bytes') return;
      if (step.kind === 'send') socket.write(step.bytes);
      else if (step.kind === 'failed') fail(errorOfHandshake(serverText(options), step.error));
      else if (step.kind === 'ready') {
        end();
        receiver = outcome.ready(socket, step.session, step.rest);
      } else throw new Error('a connection was asked for, no list');
    }
  };

  const socket = connect({
    ...address,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: KEEP_ALIVE_MS,
    onread: {
      buffer: area.received,
      callback: (bytes) => {
        if (receiver !== undefined) receiver.received(bytes);
        else if (!over) {
          handshake.feed(area.received.subarray(0, bytes));
          advance();
        }
        return true;
      },
    },
  });
  const timer = setTimeout(() => {
    fail(new VolumeError('io', `${serverText(options)} does not answer`));
    socket.destroy();
  }, timeoutMs);
  socket.on('error', (error) => {
    failure = error;
  });
  const ended = (): void => {
    if (receiver !== undefined) {
      receiver.ended(failure);
    } else if (failure !== undefined) {
      fail(new VolumeError('io', `${serverText(options)}: ${failure.message}`, { cause: failure }));
    } else {
      handshake.end();
      advance();
    }
  };
  socket.on('end', ended);
  socket.on('close', ended);
  return () => {
    end();
    socket.destroy();
  };
}
