import { expect, test } from 'vitest';
import { MUTANTS } from './mutants.ts';
import { run } from './world.ts';

const RUNS_MAX = 300;

for (const mutant of MUTANTS) {
  test(`a cluster in which a rule is broken is found out (${mutant.name})`, () => {
    let violation: string | undefined;
    let seed = 0;
    while (violation === undefined && seed < RUNS_MAX) violation = run({ seed: ++seed, mutant }).violation;
    expect(violation).toBeDefined();
    console.log(`${mutant.name}: run ${seed}: ${violation?.split('\n')[0]}`);
  });
}
