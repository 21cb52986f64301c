import fc from 'fast-check';
import { expect, test } from 'vitest';
import { LooseList, type Placed } from '../../../src/base/loose-list.ts';

test('it is a set', () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.boolean(), fc.nat({ max: 20 }))), (taken) => {
      const items: Placed[] = Array.from({ length: 21 }, () => ({ place: 0 }));
      const list = new LooseList<Placed>();
      const model = new Set<Placed>();
      for (const [isAdded, which] of taken) {
        const item = items[which] as Placed;
        if (!isAdded) expect(list.delete(item)).toBe(model.delete(item));
        else if (!model.has(item)) {
          list.add(item);
          model.add(item);
        }
        for (const one of items) expect(list.has(one)).toBe(model.has(one));
        expect(list.size).toBe(model.size);
        expect(new Set(list)).toEqual(model);
        expect(new Set(list.all())).toEqual(model);
      }
      list.clear();
      expect([...list]).toEqual([]);
    }),
  );
});
