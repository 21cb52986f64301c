import { defineConfig } from 'vitest/config';

// One project per kind of test, so that each can be run alone: `npx vitest run --project unit`.
// Kinds that start servers, kill them or boot a kernel run their files one after another: the
// machines this runs on have two cores, and a starved server proves nothing.
const serial = { fileParallelism: false, testTimeout: 120_000, hookTimeout: 120_000 };

// Kinds whose files mostly wait, for processes that start and for what is away: two at a time, after the small ones.
const pairs = { sequence: { groupOrder: 1 }, testTimeout: 120_000, hookTimeout: 120_000 };

export default defineConfig({
  test: {
    maxWorkers: 2, // of the kinds whose files may run side by side
    projects: [
      { test: { name: 'house', include: ['test/house/**/*.test.ts'] } },
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts'], testTimeout: 30_000 } },
      { test: { name: 'contract', include: ['test/contract/**/*.test.ts'], testTimeout: 30_000 } },
      { test: { name: 'simulation', include: ['test/simulation/**/*.test.ts'], testTimeout: 120_000 } },
      { test: { name: 'conformance', include: ['test/conformance/**/*.test.ts'], ...serial } },
      { test: { name: 'interop', include: ['test/interop/**/*.test.ts'], ...pairs } },
      { test: { name: 'cluster', include: ['test/cluster/**/*.test.ts'], ...pairs } },
      { test: { name: 'crash', include: ['test/crash/**/*.test.ts'], ...serial } },
      {
        test: {
          name: 'host',
          include: ['test/host/**/*.test.ts'],
          ...serial,
          testTimeout: 600_000,
          hookTimeout: 300_000,
        },
      },
      {
        test: {
          name: 'docker',
          include: ['test/docker/**/*.test.ts'],
          ...serial,
          testTimeout: 300_000,
          hookTimeout: 300_000,
        },
      },
    ],
  },
});
