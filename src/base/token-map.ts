/**
 * TokenMap: a map whose keys are counted up, like the numbers of requests: most of those that are in it are close to one another.
 * A Map that is filled and emptied for ever makes a new table again and again, and each old one refers to the next: a collection finds
 * all of them alive once one has grown old. Here nothing is made but when it grows.
 *
 * Invariant: a key is in the ring, at its place, or, when an older one still has that place, in `#stragglers`.
 */

const SLOTS_MIN = 64;
const SLOTS_MAX = 8192;
const NONE = -1;

export class TokenMap<T> {
  #keys = new Float64Array(SLOTS_MIN).fill(NONE);
  #values: (T | undefined)[] = new Array(SLOTS_MIN).fill(undefined);
  readonly #stragglers = new Map<number, T>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(key: number): T | undefined {
    const at = key % this.#keys.length;
    if (this.#keys[at] === key) return this.#values[at];
    return this.#stragglers.size === 0 ? undefined : this.#stragglers.get(key);
  }

  /** A key that is not in it: an integer from 0 on. */
  add(key: number, value: T): void {
    let at = key % this.#keys.length;
    while (this.#keys[at] !== NONE && this.#size * 2 >= this.#keys.length && this.#keys.length < SLOTS_MAX) {
      this.#grow();
      at = key % this.#keys.length;
    }
    this.#size += 1;
    if (this.#keys[at] === NONE) {
      this.#keys[at] = key;
      this.#values[at] = value;
    } else this.#stragglers.set(key, value);
  }

  /** Returns what it was, if it was in it. */
  take(key: number): T | undefined {
    const at = key % this.#keys.length;
    if (this.#keys[at] === key) {
      const value = this.#values[at];
      this.#keys[at] = NONE;
      this.#values[at] = undefined;
      this.#size -= 1;
      return value;
    }
    if (this.#stragglers.size === 0) return undefined;
    const value = this.#stragglers.get(key);
    if (this.#stragglers.delete(key)) this.#size -= 1;
    return value;
  }

  clear(): void {
    this.#keys.fill(NONE);
    this.#values.fill(undefined);
    this.#stragglers.clear();
    this.#size = 0;
  }

  /** In the order of their keys. */
  values(): T[] {
    const entries = [...this.#stragglers];
    for (const [at, key] of this.#keys.entries()) {
      if (key !== NONE) entries.push([key, this.#values[at] as T]);
    }
    return entries.sort(([a], [b]) => a - b).map(([, value]) => value);
  }

  #grow(): void {
    const [keys, values] = [this.#keys, this.#values];
    this.#keys = new Float64Array(keys.length * 2).fill(NONE);
    this.#values = new Array(keys.length * 2).fill(undefined);
    const place = (key: number, value: T): boolean => {
      const at = key % this.#keys.length;
      if (this.#keys[at] !== NONE) return false;
      this.#keys[at] = key;
      this.#values[at] = value;
      return true;
    };
    for (const [at, key] of keys.entries()) {
      if (key !== NONE) place(key, values[at] as T); // two of the ring never come to share a place in a ring twice as large
    }
    for (const [key, value] of [...this.#stragglers]) if (place(key, value)) this.#stragglers.delete(key);
  }
}
