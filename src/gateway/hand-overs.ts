/**
 * Sockets on their way from the primary process to a worker. Node closes ours when the worker's side of the channel has
 * acknowledged it, and for ever keeps one that a worker which has died never acknowledged: its host would wait for ever.
 *
 * Invariants
 *  1. A socket is in here from before it is sent until the worker says that it has it, or has ended; then it is the worker's, or closed.
 *  2. There are at most HAND_OVERS_MAX: a worker that takes none is given no more.
 */

import type { Socket } from 'node:net';

export const HAND_OVERS_MAX = 1024;

/** What a socket is made on. A socket that has been sent has let go of it. */
interface Handle {
  close(): void;
}

export class HandOvers {
  readonly #underWay = new Map<number, { readonly socket: Socket; readonly handle: Handle | null }>();
  #nextId = 1;

  /** @returns what the worker has to call it; undefined: there are too many. */
  begin(socket: Socket): number | undefined {
    if (this.#underWay.size >= HAND_OVERS_MAX) return undefined;
    const id = this.#nextId++;
    const { _handle: handle } = socket as unknown as { readonly _handle: Handle | null };
    this.#underWay.set(id, { socket, handle });
    return id;
  }

  /** The worker has it. */
  end(id: number): void {
    this.#underWay.delete(id);
  }

  /** The worker has ended. */
  closeAll(): void {
    for (const { socket, handle } of this.#underWay.values()) {
      socket.destroy();
      handle?.close();
    }
    this.#underWay.clear();
  }
}
