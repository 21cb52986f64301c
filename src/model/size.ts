/** Sizes as people write them: `4096`, `512MiB`, `10GiB`. */

import { UsageError } from './errors.ts';

const UNITS = ['', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];

/**
 * Bytes of `text`: a whole number, alone or with KiB, MiB, GiB, TiB or PiB (in any case; 1 KiB is 1024 bytes),
 * from 1 up to 2^53 - 1. Units that mean 1000 to some and 1024 to others (K, MB, …) are refused.
 */
export function parseSize(text: string): number {
  const [, digits = '', unit = ''] = /^(\d+)([a-z]*)$/i.exec(text) ?? [];
  const power = UNITS.findIndex((known) => known.toLowerCase() === unit.toLowerCase());
  if (digits === '' || power < 0) {
    throw new UsageError(
      'bad-size',
      `"${text}" is no size: give a whole number of bytes, or one of KiB, MiB, GiB, TiB or PiB, such as 512MiB`,
    );
  }
  const sizeBytes = BigInt(digits) * 1024n ** BigInt(power);
  if (sizeBytes > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new UsageError(
      'bad-size',
      `${text} is more than 2^53 - 1 bytes (8 PiB less one byte), the most a volume can have`,
    );
  }
  if (sizeBytes === 0n) throw new UsageError('bad-size', `${text} is nothing: a volume has at least 1 byte`);
  return Number(sizeBytes);
}
