/** Whether the file of a real volume can be used: asked at the start, and before one that has failed is taken back. */

import { VolaryError } from '../model/errors.ts';
import { openSparseFile } from '../storage/open-sparse-file.ts';
import { lookAtRawFile } from '../storage/raw-file.ts';

export interface FileCheck {
  /** What it takes in the file system. */
  readonly allocatedBytes: number;
  /** Why it cannot be used, as a sentence. */
  readonly trouble: string | undefined;
}

/** What lies behind the end has been left by an interrupted resize: it is cut off. Never fails. */
export async function checkFile(path: string, sizeBytes: number): Promise<FileCheck> {
  const look = await lookAtRawFile(path);
  if (look.kind !== 'usable') {
    return { allocatedBytes: 0, trouble: look.kind === 'missing' ? 'its file is missing' : look.reason };
  }
  const { allocatedBytes } = look;
  if (look.sizeBytes < sizeBytes) return { allocatedBytes, trouble: tooShort(look.sizeBytes, sizeBytes) };
  try {
    if (look.sizeBytes > sizeBytes) await shorten(path, sizeBytes);
    return { allocatedBytes, trouble: undefined };
  } catch (error) {
    if (!(error instanceof VolaryError)) throw error;
    return { allocatedBytes, trouble: error.message };
  }
}

export function tooShort(actualBytes: number, sizeBytes: number): string {
  return `its file ends at ${actualBytes} of ${sizeBytes} bytes: something has cut it short`;
}

/** It was never part of the volume, or not any more. */
async function shorten(path: string, sizeBytes: number): Promise<void> {
  const file = await openSparseFile(path);
  try {
    await file.resize(sizeBytes);
    await file.flush();
  } finally {
    await file.close();
  }
}
