/** From what went wrong inside to what the other side of the control API is told. */

import {
  ControlError,
  type ControlErrorCode,
  StoreError,
  type StoreErrorCode,
  UsageError,
  type UsageErrorCode,
  VolumeError,
} from '../model/errors.ts';

/** Everything else is `failed`. */
const USAGE: Partial<Record<UsageErrorCode, ControlErrorCode>> = {
  'no-space': 'no-space',
  'bad-size': 'no-space', // no file can be as long as that there
  locked: 'unavailable',
};

const STORE: Record<StoreErrorCode, ControlErrorCode> = {
  'no-space': 'no-space',
  locked: 'unavailable',
  io: 'failed',
};

/** `attempt` completes "cannot …". What is our own mistake is thrown on as it is. */
export function controlErrorOf(error: unknown, attempt: string): ControlError {
  if (error instanceof ControlError) return error;
  const told = (code: ControlErrorCode, { message }: Error) =>
    new ControlError(code, `cannot ${attempt}: ${message}`, { cause: error });
  if (error instanceof UsageError) return told(USAGE[error.code] ?? 'failed', error);
  if (error instanceof StoreError) return told(STORE[error.code], error);
  if (error instanceof VolumeError) {
    const full = error.code === 'no-space' || error.code === 'too-big';
    return told(full ? 'no-space' : 'failed', error);
  }
  throw error;
}

/** Descriptors or memory have run out, or somebody else holds the file: nothing is wrong with the file itself. */
const PASSING = new Set(['EMFILE', 'ENFILE', 'ENOMEM', 'EAGAIN', 'EINTR']);

export function mayPass(error: UsageError): boolean {
  if (error.code === 'locked') return true;
  const { cause } = error;
  return cause instanceof Error && 'code' in cause && PASSING.has(String(cause.code));
}
