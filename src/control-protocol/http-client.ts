/**
 * Requests to another process's HTTP API.
 *
 * Invariants:
 *  1. Every request has a deadline, every event stream a longest silence.
 *  2. Every failure is a ControlError: the one that the other side tells, or `unreachable` when nothing or nothing
 *     understandable comes back.
 *  3. What is kept of an answer, or of one message of a stream, is at most MESSAGE_BYTES_MAX, whatever comes.
 *  4. Nobody is followed to another address: a redirection is no answer.
 */

import { createParser, type EventSourceMessage } from 'eventsource-parser';
import { z } from 'zod';
import { ControlError, type ControlErrorCode } from '../model/errors.ts';
import { ErrorBody } from './catalog.ts';

export interface HttpClientOptions {
  /** `http://HOST:PORT`. */
  readonly url: string;
  /** Who that is, in messages: `the directory`, `storage system east-1`. */
  readonly who: string;
  /** For one request (default 10,000). */
  readonly timeoutMs?: number;
  /** What a person can do when it cannot be reached; put behind the reason. */
  readonly advice?: string;
}

export interface RequestOptions {
  readonly body?: unknown;
  readonly query?: Readonly<Record<string, string | number | boolean | undefined>>;
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

export type Method = 'GET' | 'PUT' | 'POST' | 'PATCH' | 'DELETE';

const TIMEOUT_MS = 10_000;
/** An event stream that says nothing for so long is dead: the other side sends a comment every 5 s. */
const SILENCE_MS_MAX = 15_000;
/** A snapshot of 100,000 volumes fits in. */
const MESSAGE_BYTES_MAX = 64 * 1024 * 1024;
/** Of what the other side should not have said, in messages. */
const QUOTE_LENGTH_MAX = 300;

const KNOWN_CODES: Record<ControlErrorCode, true> = {
  'bad-request': true,
  'not-found': true,
  exists: true,
  conflict: true,
  'in-use': true,
  'no-space': true,
  'stale-epoch': true,
  'wrong-cluster': true,
  'wrong-identity': true,
  'not-supported': true,
  unavailable: true,
  timeout: true,
  unreachable: true,
  cancelled: true,
  failed: true,
};

/** Puts path segments together, each encoded. */
export function pathOf(...segments: readonly string[]): string {
  return segments.map((segment) => `/${encodeURIComponent(segment)}`).join('');
}

export class HttpClient {
  readonly #options: HttpClientOptions;

  constructor(options: HttpClientOptions) {
    this.#options = options;
  }

  /** @throws ControlError */
  async call<T extends z.ZodType>(
    schema: T,
    method: Method,
    path: string,
    options: RequestOptions = {},
  ): Promise<z.output<T>> {
    const response = await this.#fetch(method, path, options);
    return this.#understood(schema, `${method} ${path}`, await this.#json(response));
  }

  /** For answers without content. @throws ControlError */
  async send(method: Method, path: string, options: RequestOptions = {}): Promise<void> {
    const response = await this.#fetch(method, path, options);
    await response.body?.cancel();
  }

  /** The data of an event, which has come from `path`. @throws ControlError */
  parseEvent<T extends z.ZodType>(schema: T, path: string, data: string): z.output<T> {
    return this.#understood(schema, `GET ${path}`, this.#parseJson(data));
  }

  /**
   * Server-sent events, until the stream ends (then returns), fails or falls silent (then throws a ControlError), or `signal`
   * is aborted (then returns).
   */
  async *events(
    path: string,
    signal: AbortSignal,
    query?: RequestOptions['query'],
  ): AsyncGenerator<EventSourceMessage> {
    const silence = new AbortController();
    let timer = setTimeout(() => silence.abort(), SILENCE_MS_MAX);
    const received: EventSourceMessage[] = [];
    let tooLong = false;
    const parser = createParser({
      onEvent: (event) => received.push(event),
      onError: ({ type }) => {
        tooLong ||= type === 'max-buffer-size-exceeded';
      },
      maxBufferSize: MESSAGE_BYTES_MAX,
    });
    const decoder = new TextDecoder();
    try {
      const either = AbortSignal.any([signal, silence.signal]);
      const response = await this.#request('GET', path, { ...(query ? { query } : {}), signal: either });
      for await (const chunk of response.body ?? []) {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENCE_MS_MAX);
        parser.feed(decoder.decode(chunk, { stream: true }));
        yield* received.splice(0);
        if (tooLong) throw this.#tooLong();
      }
    } catch (error) {
      if (signal.aborted) return;
      if (silence.signal.aborted) throw this.#unreachable('has fallen silent', error);
      if (error instanceof ControlError) throw error;
      throw this.#unreachable(reasonOf(error), error);
    } finally {
      clearTimeout(timer);
    }
  }

  #understood<T extends z.ZodType>(schema: T, what: string, document: unknown): z.output<T> {
    const parsed = schema.safeParse(document);
    if (parsed.success) return parsed.data;
    const wrong = z.prettifyError(parsed.error).replaceAll(/\s+/g, ' ').slice(0, QUOTE_LENGTH_MAX);
    throw this.#unreachable(`answers what ${what} should not: ${wrong}`, parsed.error);
  }

  #fetch(method: Method, path: string, options: RequestOptions): Promise<Response> {
    const deadline = AbortSignal.timeout(options.timeoutMs ?? this.#options.timeoutMs ?? TIMEOUT_MS);
    const signal = options.signal === undefined ? deadline : AbortSignal.any([deadline, options.signal]);
    return this.#request(method, path, { ...options, signal });
  }

  async #request(
    method: Method,
    path: string,
    options: RequestOptions & { signal: AbortSignal },
  ): Promise<Response> {
    const url = new URL(path, this.#options.url);
    for (const [name, value] of Object.entries(options.query ?? {})) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    let response: Response;
    try {
      response = await fetch(url, {
        method,
        signal: options.signal,
        redirect: 'error',
        ...(options.body === undefined
          ? {}
          : { body: JSON.stringify(options.body), headers: { 'content-type': 'application/json' } }),
      });
    } catch (error) {
      throw this.#unreachable(reasonOf(error), error);
    }
    if (!response.ok) throw await this.#refusal(response);
    return response;
  }

  async #refusal(response: Response): Promise<ControlError> {
    const parsed = Refusal.safeParse(await this.#json(response));
    if (parsed.success) return controlErrorOf(parsed.data.error);
    return this.#unreachable(`answers with status ${response.status}`);
  }

  async #json(response: Response): Promise<unknown> {
    const pieces: Uint8Array[] = [];
    let length = 0;
    try {
      for await (const piece of response.body ?? []) {
        length += piece.length;
        if (length > MESSAGE_BYTES_MAX) throw this.#tooLong();
        pieces.push(piece);
      }
    } catch (error) {
      if (error instanceof ControlError) throw error;
      throw this.#unreachable(reasonOf(error), error);
    }
    return this.#parseJson(Buffer.concat(pieces, length).toString());
  }

  #parseJson(text: string): unknown {
    try {
      return JSON.parse(text);
    } catch (error) {
      throw this.#unreachable('answers with something that is no JSON', error);
    }
  }

  #tooLong(): ControlError {
    return this.#unreachable(`answers with more than ${MESSAGE_BYTES_MAX} bytes at once`);
  }

  #unreachable(what: string, cause?: unknown): ControlError {
    const { who, url, advice } = this.#options;
    const hint = advice === undefined ? '' : `; ${advice}`;
    return new ControlError('unreachable', `${who} (${url}): ${what}${hint}`, { cause });
  }
}

const Refusal = z.object({ error: ErrorBody });

/** A failure that another process has told, as an error of ours; a code that we do not know is `failed`. */
export function controlErrorOf({ code, message }: ErrorBody): ControlError {
  return new ControlError(isKnown(code) ? code : 'failed', message);
}

/** The other side may be there again in a moment. */
export function isAway(error: unknown): error is ControlError {
  return error instanceof ControlError && (error.code === 'unreachable' || error.code === 'unavailable');
}

function isKnown(code: string): code is ControlErrorCode {
  return Object.hasOwn(KNOWN_CODES, code);
}

/** fetch hides what happened behind "fetch failed". */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error.name === 'TimeoutError') return 'no answer in time';
  const { cause } = error;
  if (!(cause instanceof Error)) return error.message;
  return 'code' in cause && cause.code !== undefined ? String(cause.code) : cause.message;
}
