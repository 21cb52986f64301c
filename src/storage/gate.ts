/** Lets so many operations run at a time; the others wait, in order. */
export class Gate {
  #atOnce: number;
  #running = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(atOnce: number) {
    this.#atOnce = atOnce;
  }

  /** Takes effect as operations end. */
  set atOnce(count: number) {
    this.#atOnce = count;
  }

  async run<T>(operation: () => Promise<T>): Promise<T> {
    if (this.#running >= this.#atOnce) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    else this.#running += 1;
    try {
      return await operation();
    } finally {
      this.#handOn();
    }
  }

  #handOn(): void {
    this.#running -= 1;
    while (this.#running < this.#atOnce) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      this.#running += 1;
      next();
    }
  }
}
