/**
 * FaultVolume: chosen operations fail, with a chosen code, and never reach the volume behind. A flush that fails
 * makes it failed for good, as rule 6 of model/volume.ts wants.
 */

import { VolumeError, type VolumeErrorCode } from '../../../src/model/errors.ts';
import { type Call, type OperationName, WrappedVolume } from './wrapped-volume.ts';

export interface Fault {
  readonly operation: OperationName;
  readonly code: VolumeErrorCode;
  /** The first call that fails, counted from 1 at the moment of `inject`. Default 1. */
  readonly at?: number;
  /** How many calls fail from there on. Default 1. */
  readonly times?: number;
  /** Only calls that touch this byte count and fail. */
  readonly touching?: number;
}

interface ActiveFault {
  readonly fault: Fault;
  callsBefore: number;
  failuresLeft: number;
}

const needsGoodState = new Set<OperationName>(['write', 'flush', 'trim', 'writeZeroes', 'resize']);

export class FaultVolume extends WrappedVolume {
  readonly #faults: ActiveFault[] = [];
  #failed = false;

  inject(fault: Fault): void {
    this.#faults.push({ fault, callsBefore: (fault.at ?? 1) - 1, failuresLeft: fault.times ?? 1 });
  }

  protected override async around<T>(call: Call, operation: () => Promise<T>): Promise<T> {
    this.#refuseWhenFailed(call);
    const fault = this.#faultOf(call);
    this.#count(call);
    if (fault !== undefined) {
      if (call.operation === 'flush') this.#failed = true;
      throw new VolumeError(fault.code, `injected into ${call.operation}`, { offset: call.offset });
    }
    return operation();
  }

  /** Not now when it is to fail: the read or write that follows does, and is the call that counts. */
  protected override aroundNow(call: Call, operation: () => boolean): boolean {
    this.#refuseWhenFailed(call);
    if (this.#faultOf(call) !== undefined || !operation()) return false;
    this.#count(call);
    return true;
  }

  #refuseWhenFailed(call: Call): void {
    if (this.#failed && needsGoodState.has(call.operation)) {
      throw new VolumeError('failed', 'an injected failure of flush came before');
    }
  }

  #faultOf(call: Call): Fault | undefined {
    return this.#faults.find((active) => concerns(active, call) && active.callsBefore === 0)?.fault;
  }

  #count(call: Call): void {
    for (const active of this.#faults) {
      if (!concerns(active, call)) continue;
      if (active.callsBefore > 0) active.callsBefore -= 1;
      else active.failuresLeft -= 1;
    }
  }
}

function concerns({ fault, failuresLeft }: ActiveFault, call: Call): boolean {
  if (failuresLeft <= 0 || fault.operation !== call.operation) return false;
  const { touching } = fault;
  return touching === undefined || (call.offset <= touching && touching < call.offset + call.length);
}
