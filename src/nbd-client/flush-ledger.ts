/**
 * What a flush may claim. Counts the changes that were answered, and those of them that an answered flush covers.
 *
 *  - A flush covers the changes that were answered before it was sent: those, and no later ones, count as flushed.
 *  - A server without CAN_MULTI_CONN promises a flush for its own connection only. When that is lost while answered
 *    changes are not flushed, nobody can promise them any more: the next flush fails.
 *  - After a flush has failed, changes and flushes are refused for good (rule 6 of model/volume.ts).
 */

import { VolumeError } from '../model/errors.ts';
import { Command } from '../nbd-server-protocol/constants.ts';
import type { Operation } from './operation.ts';

export class FlushLedger {
  #answered = 0;
  #flushed = 0;
  #inDoubt = false;
  #failure: string | undefined;

  /** Why the operation must not be sent; undefined: it may. Asked each time before it is. */
  refusalOf(operation: Operation): VolumeError | undefined {
    const isFlush = operation.command === Command.flush;
    if (isFlush && this.#inDoubt) {
      this.#failure ??= 'a connection was lost, and the server does not promise its writes to another';
    }
    return isFlush || operation.isChange ? this.refusalOfChanges() : undefined;
  }

  /** Why nothing may be changed any more. */
  refusalOfChanges(): VolumeError | undefined {
    if (this.#failure === undefined) return undefined;
    return new VolumeError('failed', `the volume takes no more writes: ${this.#failure}`);
  }

  /** A flush has failed, or the next one will: whoever has the volume must hear of it. */
  get owesFailure(): boolean {
    return this.#inDoubt || this.#failure !== undefined;
  }

  sent(operation: Operation): void {
    operation.changesBefore = this.#answered;
  }

  succeeded(operation: Operation): void {
    if (operation.isChange && !operation.isFua) this.#answered += 1;
    if (operation.command === Command.flush) {
      this.#flushed = Math.max(this.#flushed, operation.changesBefore);
    }
  }

  /** The server has answered with an error. */
  refused(operation: Operation, error: VolumeError): void {
    if (operation.command === Command.flush) this.#failure ??= `a flush failed: ${error.message}`;
  }

  connectionLost(canMultiConn: boolean): void {
    if (!canMultiConn && this.#answered > this.#flushed) this.#inDoubt = true;
  }
}
