/**
 * What the links of one storage system hold of received payloads, together. A window bounds one link; there may be thousands, and a disk that
 * stalls makes all of them full at once. Beyond the budget, links leave what comes with the kernel, and so with who sends it.
 *
 * Invariants
 *  1. A link that holds nothing whole reads, whatever the others hold: so each goes on, and what is held is at most the budget, and one
 *     operation and what is read at once of each link.
 *  2. Links that wait go on in the order in which they came, as many as there is room for.
 */

/** What is read at once. */
const STEP_BYTES = 256 * 1024;

export class ReceiveBudget {
  readonly #bytesMax: number;
  #heldBytes = 0;
  readonly #waiting = new Set<() => void>();

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  get isFull(): boolean {
    return this.#heldBytes >= this.#bytesMax;
  }

  hold(bytes: number): void {
    this.#heldBytes += bytes;
  }

  free(bytes: number): void {
    this.#heldBytes -= bytes;
    if (this.#waiting.size === 0) return;
    let steps = Math.ceil((this.#bytesMax - this.#heldBytes) / STEP_BYTES);
    for (const resume of this.#waiting) {
      if (steps <= 0) return;
      steps -= 1;
      this.#waiting.delete(resume);
      resume();
    }
  }

  /** `resume` is called once there is room. */
  wait(resume: () => void): void {
    this.#waiting.add(resume);
  }

  leave(resume: () => void): void {
    this.#waiting.delete(resume);
  }
}
