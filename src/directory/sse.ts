/**
 * Server-sent events to one consumer.
 *
 *  1. The next message is asked for when the one before has left: a slow consumer keeps one message here, no more.
 *  2. Who takes nothing for DRAIN_MS_MAX is cut off, and so is who falls behind what the store remembers; both come again for a new snapshot.
 *  3. A comment at least every 5 s says that the connection lives.
 */

import type { ServerResponse } from 'node:http';
import type { Log } from '../model/log.ts';
import { CompactedError } from './catalog-store.ts';

export interface Message {
  readonly event: string;
  readonly data: object;
  readonly id?: number;
}

export interface StreamLimits {
  readonly commentMs: number;
  readonly drainMsMax: number;
}

export const STREAM_LIMITS: StreamLimits = { commentMs: 5_000, drainMsMax: 15_000 };

/** Until the consumer goes, the messages end, or it is cut off. */
export async function streamMessages(
  response: ServerResponse,
  messages: (signal: AbortSignal) => AsyncIterable<Message>,
  { log, limits = STREAM_LIMITS }: { readonly log: Log; readonly limits?: StreamLimits },
): Promise<void> {
  const gone = new AbortController();
  response.on('close', () => gone.abort());
  response.on('error', (error) => log.debug({ error: error.message }, 'an event stream was cut'));
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  response.write(':\n\n');
  const comments = setInterval(() => {
    if (!response.writableNeedDrain) response.write(':\n\n');
  }, limits.commentMs);
  try {
    for await (const message of messages(gone.signal)) {
      if (!response.write(textOf(message)) && !(await drained(response, limits.drainMsMax))) {
        if (!gone.signal.aborted) log.warn({}, 'an event stream is not read: cut off');
        break;
      }
    }
  } catch (error) {
    if (!(error instanceof CompactedError)) throw error;
    log.warn({ error: error.message }, 'an event stream is too far behind: cut off');
  } finally {
    clearInterval(comments);
    response.destroy();
  }
}

function textOf({ event, data, id }: Message): string {
  return `event: ${event}\n${id === undefined ? '' : `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`;
}

/** False: it was not, in time, or the connection has gone. */
function drained(response: ServerResponse, msMax: number): Promise<boolean> {
  return new Promise((resolve) => {
    const settle = (value: boolean): void => {
      clearTimeout(timer);
      response.off('drain', onDrain);
      response.off('close', onClose);
      resolve(value);
    };
    const onDrain = (): void => settle(true);
    const onClose = (): void => settle(false);
    const timer = setTimeout(() => settle(false), msMax);
    response.on('drain', onDrain);
    response.on('close', onClose);
    if (response.destroyed) settle(false);
  });
}
