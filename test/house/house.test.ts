import { describe, expect, test } from 'vitest';
import { rules } from './rules.ts';
import { importsOf, readTree } from './tree.ts';

const tree = readTree();

test('the rules look at the whole project', () => {
  for (const path of ['bin/volary', '.ci/run', 'README.md', 'src/cli/main.ts', 'test/house/house.test.ts']) {
    expect(tree.has(path), path).toBe(true);
  }
  expect(importsOf(tree, 'src/cli/main.ts').map(({ what }) => what)).toContain('yargs/helpers');
});

describe.each(rules)('$name', ({ breaches, samples }) => {
  test('holds', () => {
    expect(breaches(tree)).toEqual([]);
  });

  test.each(samples)('would notice %s', (path, text) => {
    const before = breaches(tree).length;
    expect(breaches(new Map(tree).set(path, text)).length).toBeGreaterThan(before);
  });
});
