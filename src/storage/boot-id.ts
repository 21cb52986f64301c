/** The machine's boot id: what was only in the page cache is there as long as it is the same, and lost when it is another. */

import { readFileSync } from 'node:fs';
import { assert } from '../model/errors.ts';

const BOOT_ID = '/proc/sys/kernel/random/boot_id';

/** 32 hexadecimal digits. */
export function readBootId(): string {
  const id = readFileSync(BOOT_ID, 'latin1').trim().replaceAll('-', '');
  assert(/^[0-9a-f]{32}$/.test(id), `${BOOT_ID} holds no boot id`);
  return id;
}
