/** A piece of a volume, or of a file, in bytes. */
export interface Range {
  readonly offset: number;
  readonly length: number;
}

/** The same bytes in the fewest ranges, ascending. */
export function unionOf(ranges: readonly Range[]): Range[] {
  const sorted = ranges.filter(({ length }) => length > 0).sort((a, b) => a.offset - b.offset);
  const union: { offset: number; length: number }[] = [];
  for (const { offset, length } of sorted) {
    const last = union.at(-1);
    if (last === undefined || last.offset + last.length < offset) union.push({ offset, length });
    else last.length = Math.max(last.length, offset + length - last.offset);
  }
  return union;
}

/** All these bytes, and as few others as possible, in `rangesMax` ranges at most: the smallest gaps are closed. */
export function coarsened(ranges: readonly Range[], rangesMax: number): Range[] {
  const union = unionOf(ranges);
  if (union.length <= rangesMax) return union;
  const gaps = union.slice(1).map((range, at) => {
    const before = union[at] as Range;
    return { at: at + 1, length: range.offset - before.offset - before.length };
  });
  gaps.sort((a, b) => b.length - a.length);
  const starts = [0, ...gaps.slice(0, rangesMax - 1).map(({ at }) => at)].sort((a, b) => a - b);
  return starts.map((start, n) => {
    const { offset } = union[start] as Range;
    const last = union[(starts[n + 1] ?? union.length) - 1] as Range;
    return { offset, length: last.offset + last.length - offset };
  });
}

/** Of ranges that do not overlap. */
export function bytesOf(ranges: readonly Range[]): number {
  return ranges.reduce((sum, { length }) => sum + length, 0);
}
