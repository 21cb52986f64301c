/** First in, first out, in constant time however long it is. */
export class Waiting<Item> {
  #items: (Item | undefined)[] = [];
  #from = 0;

  get length(): number {
    return this.#items.length - this.#from;
  }

  get first(): Item | undefined {
    return this.#items[this.#from];
  }

  push(item: Item): void {
    this.#items.push(item);
  }

  shift(): void {
    this.#items[this.#from] = undefined;
    this.#from += 1;
    if (this.#from < this.#items.length / 2) return;
    this.#items = this.#items.slice(this.#from);
    this.#from = 0;
  }

  clear(): void {
    this.#items = [];
    this.#from = 0;
  }
}
