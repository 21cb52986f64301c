import fc from 'fast-check';
import { expect, test } from 'vitest';
import { TokenMap } from '../../../src/base/token-map.ts';

const steps = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('add' as const), skip: fc.nat({ max: 2 }) }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('take-one' as const), which: fc.nat() }) },
  // What is left behind while the keys go on for long.
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('leap' as const), by: fc.nat({ max: 20_000 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('take-none' as const), key: fc.nat({ max: 500 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('many' as const), count: fc.nat({ max: 300 }) }) },
);

test('it is a map, however the keys grow and whatever is left behind', () => {
  fc.assert(
    fc.property(fc.array(steps, { maxLength: 60 }), (taken) => {
      const map = new TokenMap<{ readonly key: number }>();
      const model = new Map<number, { readonly key: number }>();
      let next = 0;
      const add = (): void => {
        model.set(next, { key: next });
        map.add(next, model.get(next) as { readonly key: number });
        next += 1;
      };
      for (const step of taken) {
        if (step.kind === 'add') {
          next += step.skip;
          add();
        } else if (step.kind === 'many') {
          for (let n = 0; n < step.count; n++) add();
        } else if (step.kind === 'leap') next += step.by;
        else if (step.kind === 'take-one' && model.size > 0) {
          const key = [...model.keys()][step.which % model.size] as number;
          expect(map.take(key)).toBe(model.get(key));
          model.delete(key);
        } else if (step.kind === 'take-none') {
          expect(map.take(step.key)).toBe(model.get(step.key));
          model.delete(step.key);
        }
        expect(map.size).toBe(model.size);
        expect(map.values()).toEqual([...model.values()]);
        for (const key of [...model.keys(), 0, next, next - 1]) expect(map.get(key)).toBe(model.get(key));
      }
      map.clear();
      expect([map.size, map.values(), map.get(0), map.take(next - 1)]).toEqual([0, [], undefined, undefined]);
    }),
    { numRuns: 300 },
  );
});

test('one that stays does not make it grow for ever, nor is it lost', () => {
  const map = new TokenMap<string>();
  map.add(0, 'stays');
  for (let key = 1; key < 1_000_000; key += 1) {
    map.add(key, 'goes');
    expect(map.take(key)).toBe('goes');
  }
  map.add(64 * 8192, 'has the same place');
  expect([map.get(0), map.get(64 * 8192), map.size]).toEqual(['stays', 'has the same place', 2]);
  expect(map.take(0)).toBe('stays');
  expect(map.take(0)).toBeUndefined();
  expect(map.values()).toEqual(['has the same place']);
});
