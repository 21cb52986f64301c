/**
 * The wait for the first connection of a remote volume: which failure is the last, and why it is given up. Settled
 * once; what comes then changes nothing.
 */

import { VolumeError } from '../model/errors.ts';
import type { ClientSession } from '../nbd-server-protocol/session.ts';

export interface OpeningOptions {
  /** How long failures are borne; 0: the first is the last. */
  readonly openMs: number;
  readonly signal: AbortSignal | undefined;
  /** What happened when nothing has failed, and nothing come, in openMs. */
  silence(): VolumeError;
  /** It has come to nothing. */
  failed(): void;
}

export class Opening {
  readonly opened: Promise<ClientSession>;
  readonly #options: OpeningOptions;
  readonly #untilMs: number;
  readonly #timer: NodeJS.Timeout | undefined;
  #resolve: (session: ClientSession) => void = () => undefined;
  #reject: (error: VolumeError) => void = () => undefined;
  #lastFailure: VolumeError | undefined;
  #isOver = false;

  constructor(options: OpeningOptions) {
    const { openMs, signal, silence } = options;
    this.#options = options;
    this.opened = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#untilMs = performance.now() + openMs;
    if (openMs > 0) this.#timer = setTimeout(() => this.#fail(this.#lastFailure ?? silence()), openMs);
    signal?.addEventListener('abort', this.#aborted);
    if (signal?.aborted === true) this.#aborted();
  }

  get isOver(): boolean {
    return this.#isOver;
  }

  succeed(session: ClientSession): void {
    if (this.#isOver) return;
    this.#end();
    this.#resolve(session);
  }

  /** An attempt has failed. Time does not help against a server that speaks another language. */
  attemptFailed(error: VolumeError): void {
    this.#lastFailure = error;
    if (error.code === 'not-supported' || performance.now() >= this.#untilMs) this.#fail(error);
  }

  readonly #aborted = (): void => {
    this.#fail(new VolumeError('shutdown', 'opening was given up', { cause: this.#options.signal?.reason }));
  };

  #fail(error: VolumeError): void {
    if (this.#isOver) return;
    this.#end();
    this.#options.failed();
    this.#reject(error);
  }

  #end(): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#options.signal?.removeEventListener('abort', this.#aborted);
  }
}
