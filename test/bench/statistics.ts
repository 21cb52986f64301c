/** Medians and ratios over rounds. Pure. */

export interface Spread {
  readonly median: number;
  readonly lowest: number;
  readonly highest: number;
}

/** The middle value; of an even number of values, the mean of the two in the middle. Throws on an empty list. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const upper = sorted[sorted.length >> 1];
  const lower = sorted[(sorted.length - 1) >> 1];
  if (upper === undefined || lower === undefined) throw new Error('the median of no values');
  return (lower + upper) / 2;
}

export function spread(values: readonly number[]): Spread {
  return { median: median(values), lowest: Math.min(...values), highest: Math.max(...values) };
}

/**
 * Ratios of what was measured in the same round: `values[i] / base[i]`. Servers of one round ran right after
 * one another, so a machine that was slow for a while was slow for both sides of the ratio.
 */
export function pairedRatios(values: readonly number[], base: readonly number[]): Spread {
  if (values.length !== base.length) throw new Error(`${values.length} rounds against ${base.length}`);
  return spread(values.map((value, round) => value / (base[round] as number)));
}
