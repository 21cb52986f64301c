/**
 * A connection's way through a slow link: what is sent to the listener goes on to the target at a rate, and back as it comes. It can
 * fall silent, as a broken link does: nothing arrives any more, in either direction, and nobody is told. When it is heard again, all that
 * was on its way arrives, whether its sender is there still or not.
 */

import { createServer, connect as dial, type Server, type Socket } from 'node:net';
import type { SocketAddress } from '../../src/model/socket-address.ts';

/** As much is on the link at once, beside what the kernel's buffers hold. */
const HELD_BYTES = 64 * 1024;
const TURN_MS = 10;

export class SlowLink implements AsyncDisposable {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #bytesPerTurn = 0;
  #isSilent = false;
  /** How much has gone to the target. */
  bytes = 0;
  /** How much has come for it. */
  receivedBytes = 0;

  private constructor(target: SocketAddress, bytesPerSecond: number) {
    this.bytesPerSecond = bytesPerSecond;
    this.#server = createServer({ noDelay: true }, (near) => {
      const far = dial({ ...target, noDelay: true });
      this.#tie(near, far);
    });
  }

  static start(
    target: SocketAddress,
    bytesPerSecond: number,
  ): Promise<SlowLink & { address: SocketAddress }> {
    const link = new SlowLink(target, bytesPerSecond);
    return new Promise((resolve) => {
      link.#server.listen({ host: '127.0.0.1', port: 0 }, () => {
        const { port } = link.#server.address() as { port: number };
        resolve(Object.assign(link, { address: { host: '127.0.0.1', port } }));
      });
    });
  }

  /** All connections are reset, and what was on its way is lost. */
  cut(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  set bytesPerSecond(bytesPerSecond: number) {
    this.#bytesPerTurn = Math.ceil((bytesPerSecond * TURN_MS) / 1000);
  }

  silence(): void {
    this.#isSilent = true;
  }

  speak(): void {
    this.#isSilent = false;
  }

  #tie(near: Socket, far: Socket): void {
    const there = this.#pump(near, far);
    near.on('data', ({ length }: Buffer) => {
      this.receivedBytes += length;
    });
    const back = this.#pump(far, near);
    const end = (): void => {
      clearInterval(timer);
      for (const socket of [near, far]) {
        socket.destroy();
        this.#sockets.delete(socket);
      }
    };
    // Not before what was on its way has arrived.
    const timer = setInterval(() => {
      if (this.#isSilent) return;
      this.bytes += there(this.#bytesPerTurn);
      back(Number.POSITIVE_INFINITY);
      if (near.readableEnded || far.readableEnded || near.errored || far.errored) end();
    }, TURN_MS);
    for (const socket of [near, far]) {
      this.#sockets.add(socket);
      socket.on('error', () => undefined); // `errored` tells
    }
  }

  /** Returns what passes on for one turn, and says how much that was. */
  #pump(from: Socket, to: Socket): (bytesMax: number) => number {
    const held: Buffer[] = [];
    let heldBytes = 0;
    from.on('data', (chunk: Buffer) => {
      held.push(chunk);
      heldBytes += chunk.length;
      if (heldBytes >= HELD_BYTES) from.pause();
    });
    return (bytesMax) => {
      let left = bytesMax;
      let passed = 0;
      while (left > 0) {
        const first = held.shift();
        if (first === undefined) break;
        const piece = first.subarray(0, left);
        if (piece.length < first.length) held.unshift(first.subarray(piece.length));
        to.write(piece);
        left -= piece.length;
        passed += piece.length;
      }
      heldBytes -= passed;
      if (heldBytes < HELD_BYTES) from.resume();
      return passed;
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
