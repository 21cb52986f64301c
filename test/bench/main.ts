/**
 * `npm run bench`: volary serve against nbdkit and qemu-nbd on this machine, now. A bench is not a test: targets
 * that are missed are shown, and the exit status is 0 unless something could not be run (1) or was asked for
 * wrongly (2).
 */

import { newBench } from './bench.ts';
import { measurePrimary, primarySteps } from './copy-primary.ts';
import { hotColdSteps, measureHotBesideCold } from './hot-beside-cold.ts';
import { describeMachine } from './machine.ts';
import { measureMemory, memorySteps } from './memory.ts';
import { type BenchOptions, parseOptions, UsageError, usage } from './options.ts';
import { type BenchReport, renderReport } from './report.ts';
import { measureScale, scaleSteps } from './scale.ts';
import { measureSpeed, speedSteps } from './speed.ts';
import { measureStart, startSteps } from './start.ts';
import {
  summariseHotCold,
  summariseMemory,
  summarisePrimary,
  summariseQuietness,
  summariseScale,
  summariseSpeed,
  summariseStart,
} from './summary.ts';

async function main(args: readonly string[]): Promise<number> {
  const options = parseOptions(args);
  if (options === 'help') {
    process.stdout.write(usage);
    return 0;
  }
  const report = await measure(options);
  process.stdout.write(options.json ? `${JSON.stringify(report, null, 2)}\n` : renderReport(report));
  return report.failures.length === 0 ? 0 : 1;
}

async function measure(options: BenchOptions): Promise<BenchReport> {
  const bench = newBench(options);
  for (const steps of [speedSteps, hotColdSteps, memorySteps, startSteps, scaleSteps, primarySteps])
    bench.expect(steps(bench));
  const machine = await describeMachine();
  const speed = await measureSpeed(bench);
  const hotBesideCold = await measureHotBesideCold(bench);
  const memory = await measureMemory(bench);
  const start = await measureStart(bench);
  const scale = await measureScale(bench);
  const primary = await measurePrimary(bench);
  return {
    machine,
    options,
    quietness: summariseQuietness(speed),
    speed: speed.map(summariseSpeed),
    hotBesideCold: hotBesideCold.map(summariseHotCold).filter((summary) => summary !== undefined),
    memory: memory.map(summariseMemory),
    start: start.map(summariseStart).filter((summary) => summary !== undefined),
    scale: scale.map(summariseScale),
    primary: primary.map(summarisePrimary),
    failures: bench.failures,
  };
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  const wrongUsage = error instanceof UsageError;
  process.stderr.write(`error: ${wrongUsage ? 'USAGE' : 'BENCH'}: ${(error as Error).message}\n`);
  process.exitCode = wrongUsage ? 2 : 1;
}
