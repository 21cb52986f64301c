import { describe, expect, test } from 'vitest';
import { PAIR_TABLE, Pair, type PairEvent, type PairState } from '../../../src/replication/pair.ts';

/** SPEC.md's table, again: the compiler finds a missing cell here, too. */
const EXPECTED: Record<PairState, Record<PairEvent, PairState | 'never'>> = {
  suspended: {
    differs: 'copying',
    equal: 'copying',
    copied: 'never',
    recorded: 'suspended',
    lost: 'suspended',
  },
  connecting: { differs: 'equalizing', equal: 'duplex', copied: 'never', recorded: 'never', lost: 'leaving' },
  copying: { differs: 'copying', equal: 'never', copied: 'joining', recorded: 'copying', lost: 'suspended' },
  equalizing: {
    differs: 'equalizing',
    equal: 'never',
    copied: 'duplex',
    recorded: 'equalizing',
    lost: 'leaving',
  },
  joining: { differs: 'joining', equal: 'never', copied: 'never', recorded: 'duplex', lost: 'leaving' },
  duplex: { differs: 'equalizing', equal: 'never', copied: 'never', recorded: 'duplex', lost: 'leaving' },
  leaving: { differs: 'leaving', equal: 'never', copied: 'never', recorded: 'suspended', lost: 'leaving' },
};

const CELLS = Object.entries(EXPECTED).flatMap(([state, row]) =>
  Object.entries(row).map(
    ([event, next]) => [state, event, next] as [PairState, PairEvent, PairState | 'never'],
  ),
);

describe('the table of a pair', () => {
  test.each(CELLS)('%s, %s: %s', (state, event, next) => {
    expect(PAIR_TABLE[state][event]).toBe(next);
    const pair = new Pair('rv-1', state, true, undefined, 10, 100);
    if (next === 'never') {
      expect(() => pair.take(event, 20)).toThrow('assertion failed');
      return;
    }
    expect(pair.take(event, 20)).toBe(state);
    expect(pair.state).toBe(next);
    expect(pair.sinceAwakeMs).toBe(next === state ? 10 : 20);
  });

  test('a pair that may be in step is left through `leaving` alone (I2)', () => {
    for (const [state, row] of Object.entries(EXPECTED)) {
      const isInStep = new Pair('rv-1', state as PairState, true, undefined, 0, 0).mayBeInStep;
      for (const next of Object.values(row)) {
        if (isInStep && state !== 'leaving') expect(next).not.toMatch(/^(suspended|copying)$/);
      }
    }
  });
});
