/**
 * Requests to another process's HTTP API. Every request has a deadline; every failure is a ControlError: the one that the
 * other side tells, or `unreachable` when nothing or nothing understandable comes back.
 */

import { createParser, type EventSourceMessage } from 'eventsource-parser';
import type { z } from 'zod';
import { ControlError, type ControlErrorCode } from '../model/errors.ts';

export interface HttpClientOptions {
  /** `http://HOST:PORT`. */
  readonly url: string;
  /** Who that is, in messages: `the directory`, `storage system east-1`. */
  readonly who: string;
  /** For one request (default 10,000). */
  readonly timeoutMs?: number;
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
    const document = await this.#json(response);
    const parsed = schema.safeParse(document);
    if (parsed.success) return parsed.data;
    throw this.#unreachable(`answers what ${method} ${path} should not: ${parsed.error.message}`);
  }

  /** For answers without content. @throws ControlError */
  async send(method: Method, path: string, options: RequestOptions = {}): Promise<void> {
    const response = await this.#fetch(method, path, options);
    await response.body?.cancel();
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
    const parser = createParser({ onEvent: (event) => received.push(event) });
    const decoder = new TextDecoder();
    try {
      const either = AbortSignal.any([signal, silence.signal]);
      const response = await this.#request('GET', path, { ...(query ? { query } : {}), signal: either });
      for await (const chunk of response.body ?? []) {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), SILENCE_MS_MAX);
        parser.feed(decoder.decode(chunk, { stream: true }));
        yield* received.splice(0);
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
    const document = await this.#json(response);
    const error =
      typeof document === 'object' && document !== null && 'error' in document ? document.error : undefined;
    if (typeof error === 'object' && error !== null && 'code' in error && 'message' in error) {
      const code = String(error.code);
      return new ControlError(isKnown(code) ? code : 'failed', String(error.message));
    }
    return this.#unreachable(`answers with status ${response.status}`);
  }

  async #json(response: Response): Promise<unknown> {
    try {
      return await response.json();
    } catch (error) {
      throw this.#unreachable('answers with something that is no JSON', error);
    }
  }

  #unreachable(what: string, cause?: unknown): ControlError {
    const { who, url } = this.#options;
    return new ControlError('unreachable', `${who} (${url}): ${what}`, { cause });
  }
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
  return 'code' in cause ? String(cause.code) : cause.message;
}
