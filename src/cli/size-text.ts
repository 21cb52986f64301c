/** Sizes for people. */

const UNITS = ['B', 'KiB', 'MiB', 'GiB'];

/** In GiB, or in the largest smaller unit that it has one of; rounded to two digits behind the point. */
export function formatSize(sizeBytes: number): string {
  let power = UNITS.length - 1;
  while (power > 0 && sizeBytes < 1024 ** power) power -= 1;
  return `${Number((sizeBytes / 1024 ** power).toFixed(2))} ${UNITS[power]}`;
}
