/**
 * `count.ts RESULTS STATUS`: prints the one line by which a test run is read, from vitest's JSON report and exit
 * status, and exits 0 only when all is well. A run that failed never counts as "0 failed": a test file that
 * could not be loaded, an unhandled error and a missing report are failures too.
 */

import { existsSync, readFileSync } from 'node:fs';

interface Report {
  readonly testResults: readonly {
    readonly status: string;
    readonly assertionResults: readonly { readonly status: string }[];
  }[];
}

export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

export function count(report: Report | undefined, vitestStatus: number): Counts {
  let passed = 0;
  let failed = 0;
  let skipped = 0;
  for (const file of report?.testResults ?? []) {
    let failedHere = 0;
    for (const { status } of file.assertionResults) {
      if (status === 'passed') passed++;
      else if (status === 'failed') failedHere++;
      else skipped++;
    }
    failed += file.status === 'failed' && failedHere === 0 ? 1 : failedHere;
  }
  if (failed === 0 && (vitestStatus !== 0 || report === undefined)) failed = 1;
  return { passed, failed, skipped };
}

export function line({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`;
}

if (import.meta.main) {
  const [path, status] = process.argv.slice(2);
  if (path === undefined || status === undefined) throw new Error('usage: count.ts RESULTS STATUS');
  const report = existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as Report) : undefined;
  const counts = count(report, Number(status));
  console.log(line(counts));
  process.exitCode = counts.failed > 0 ? 1 : 0;
}
