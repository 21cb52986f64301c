/** LooseList: things that come and go, in no order. Each knows its place, so that nothing is searched, hashed, or made anew. */

export interface Placed {
  /** Only of use to the one list that it is in. */
  place: number;
}

export class LooseList<T extends Placed> {
  readonly #items: T[] = [];

  get size(): number {
    return this.#items.length;
  }

  add(item: T): void {
    item.place = this.#items.length;
    this.#items.push(item);
  }

  has(item: T): boolean {
    return this.#items[item.place] === item;
  }

  /** False: it was not in the list. */
  delete(item: T): boolean {
    if (!this.has(item)) return false;
    const last = this.#items.pop() as T;
    if (last !== item) {
      this.#items[item.place] = last;
      last.place = item.place;
    }
    return true;
  }

  /** Those of now: it may change meanwhile. */
  all(): T[] {
    return [...this.#items];
  }

  [Symbol.iterator](): Iterator<T> {
    return this.#items[Symbol.iterator]();
  }

  clear(): void {
    this.#items.length = 0;
  }
}
