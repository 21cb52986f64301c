/**
 * DelayVolume: every operation waits at a gate before it reaches the volume behind. Nothing is done at once.
 * Two gates: `Gate`, opened and shut by the test, and `seededDelays`, a random one that can be repeated.
 */

import type { Volume } from '../../../src/model/volume.ts';
import { type Call, type OperationName, WrappedVolume } from './wrapped-volume.ts';

/** Resolves when the operation may go on. */
export type Delay = (call: Call) => Promise<void>;

export class DelayVolume extends WrappedVolume {
  readonly #delay: Delay;

  constructor(inner: Volume, delay: Delay) {
    super(inner);
    this.#delay = delay;
  }

  protected override async around<T>(call: Call, operation: () => Promise<T>): Promise<T> {
    await this.#delay(call);
    return operation();
  }

  protected override aroundNow(): boolean {
    return false;
  }
}

/** Lets operations through until it is shut; those that come then wait until they are let go. */
export class Gate {
  #shutFor: ReadonlySet<OperationName> | 'all' | undefined;
  readonly #held: { call: Call; letGo: () => void }[] = [];

  readonly delay: Delay = (call) => {
    const shut = this.#shutFor === 'all' || this.#shutFor?.has(call.operation) === true;
    if (!shut) return Promise.resolve();
    return new Promise((letGo) => {
      this.#held.push({ call, letGo });
    });
  };

  /** The operations that wait, in the order in which they came. */
  get held(): readonly Call[] {
    return this.#held.map(({ call }) => call);
  }

  /** Holds what comes from now on: all, or only the operations of these names. */
  shut(...operations: OperationName[]): void {
    this.#shutFor = operations.length === 0 ? 'all' : new Set(operations);
  }

  /** Lets one that waits go, by its index in `held`. */
  letOneGo(index = 0): void {
    const [held] = this.#held.splice(index, 1);
    if (held === undefined) throw new Error(`no operation waits at index ${index}`);
    held.letGo();
  }

  /** Lets all go, and all that come. */
  open(): void {
    this.#shutFor = undefined;
    for (const { letGo } of this.#held.splice(0)) letGo();
  }
}

/** Delays of 0 to `delayMaxMs`, the same ones for the same seed; one in four operations is not delayed. */
export function seededDelays(seed: number, delayMaxMs: number): Delay {
  let state = seed >>> 0;
  const random = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
  return async () => {
    if (random() < 0.25) return;
    const delayMs = random() * delayMaxMs;
    await new Promise((resolve) => setTimeout(resolve, delayMs));
  };
}
