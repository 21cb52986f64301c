/** As many again, beside same-seeds.test.ts, so that both processors have some. Seeds that nobody has seen are for `npm run simulate`. */

import { expect, test } from 'vitest';
import { failuresOf, PORTION } from './seeds.ts';

for (const first of [251, 301, 351, 401, 451]) {
  test(`a cluster keeps its promises in runs that are always the same (${first})`, () => {
    expect(failuresOf(first, PORTION)).toEqual([]);
  });
}
