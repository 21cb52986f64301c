/**
 * The speed jobs. All servers are up, each with a file of its own; one is loaded at a time. A round runs every
 * job on every server, so that whatever changes on the machine over time changes for all of them alike.
 */

import { type Bench, inTurn } from './bench.ts';
import { startCopyStack } from './copy-stacks.ts';
import { type FioJob, runFio } from './fio.ts';
import { startGatewayStack } from './gateway-stacks.ts';
import { type Family, families, peersOf, type SpeedJob, type StackName, speedJobs } from './jobs.ts';
import { type Folder, makeFullFile, newFolder, type PlaceName, settle } from './places.ts';
import { busyCpuSeconds, ownCpuSeconds, processCpuSeconds } from './proc.ts';
import { type Loadable, serverNames, startServer } from './servers.ts';

export const fileBytes = 2 ** 30;

/** One run of one job on one server. */
export interface SpeedSample extends FioJob {
  readonly serverCpuSeconds: number;
  /** Of all processors together: what neither this bench nor any of its servers has used, per second. */
  readonly foreignCpu: number;
  /** What each server that was up but not loaded has used, per second. */
  readonly idleCpu: Readonly<Partial<Record<StackName, number>>>;
}

export interface SpeedResult {
  readonly place: PlaceName;
  readonly job: SpeedJob;
  /** One entry a round; undefined where the run failed. */
  readonly samples: ReadonlyMap<StackName, readonly (SpeedSample | undefined)[]>;
}

function chosenJobs({ options }: Bench): SpeedJob[] {
  return speedJobs.filter(({ name }) => options.jobs.includes(name));
}

/** Of the stacks of a family, those that are no server alone are there whenever volary is. */
function stacksOf({ options }: Bench, family: Family): StackName[] {
  const { servers } = options;
  const isChosen = (name: StackName) =>
    servers.some((chosen) => chosen === name) ||
    (servers.includes('volary') && !serverNames.some((server) => server === name));
  return (['volary', ...peersOf[family]] as const).filter(isChosen);
}

/** A peer that a job has no target for is nothing to compare it with. */
function runsOn(job: SpeedJob, name: StackName): boolean {
  return name === 'volary' || job.targets[name] !== undefined;
}

export function speedSteps(bench: Bench): number {
  const { options } = bench;
  const steps = families.map((family) => {
    const stacks = stacksOf(bench, family);
    const runs = chosenJobs(bench)
      .filter((job) => job.family === family)
      .map(
        (job) => stacks.filter((name) => runsOn(job, name)).length * (options.warmUpRounds + options.rounds),
      );
    return runs.length === 0 ? 0 : options.places.length * (stacks.length + sum(runs));
  });
  return steps.reduce((sum, one) => sum + one, 0);
}

export async function measureSpeed(bench: Bench): Promise<SpeedResult[]> {
  const results: SpeedResult[] = [];
  for (const place of bench.options.places) {
    for (const family of families) {
      const jobs = chosenJobs(bench).filter((job) => job.family === family);
      if (jobs.length > 0) results.push(...(await measurePlace(bench, place, family, jobs)));
    }
  }
  return results;
}

/** Something to load, and the files that it keeps. */
export interface Candidate {
  readonly server: Loadable;
  readonly files: readonly string[];
}

async function startCandidate(family: Family, name: StackName, folder: Folder): Promise<Candidate> {
  const file = folder.file(`${name}.img`);
  await makeFullFile(file, fileBytes);
  if (family === 'gateway') return startGatewayStack(name, file, folder);
  if (family === 'copy') return startCopyStack(name, file, folder);
  const server = serverNames.find((one) => one === name);
  if (server === undefined) throw new Error(`${name} is no server`);
  return { server: await startServer(server, { file }), files: [file] };
}

async function measurePlace(
  bench: Bench,
  place: PlaceName,
  family: Family,
  jobs: readonly SpeedJob[],
): Promise<SpeedResult[]> {
  const folder = newFolder(place);
  const candidates: Candidate[] = [];
  try {
    for (const name of stacksOf(bench, family)) {
      const candidate = await bench.step(`${place}: starting ${name} (${family})`, () =>
        startCandidate(family, name, folder),
      );
      if (candidate !== undefined) candidates.push(candidate);
    }
    const taken = jobs.map(() => new Map(candidates.map(({ server }) => [server.name, emptyRounds()])));
    const { warmUpRounds, rounds } = bench.options;
    for (let round = -warmUpRounds; round < rounds; round += 1) {
      for (const [index, job] of jobs.entries()) {
        const compared = candidates.filter(({ server }) => runsOn(job, server.name));
        for (const candidate of inTurn(compared, Math.max(0, round))) {
          const { name } = candidate.server;
          const sample = await bench.step(
            `${place}: ${job.name} on ${name}, ${round < 0 ? 'warming up' : `round ${round + 1}`}`,
            () => measureOnce(bench, job, candidate, candidates, folder),
          );
          if (round >= 0) taken[index]?.get(name)?.push(sample);
        }
      }
    }
    return jobs.map((job, index) => ({ place, job, samples: taken[index] ?? new Map() }));
  } finally {
    for (const { server } of candidates) await server.stop();
    folder.remove();
  }
}

function emptyRounds(): (SpeedSample | undefined)[] {
  return [];
}

async function measureOnce(
  bench: Bench,
  job: SpeedJob,
  loaded: Candidate,
  all: readonly Candidate[],
  folder: Folder,
): Promise<SpeedSample> {
  const cpuOfServers = (): number[] => all.map(({ server }) => sum(server.pids.map(processCpuSeconds)));
  const started = performance.now();
  const busy = busyCpuSeconds();
  const own = ownCpuSeconds();
  const before = cpuOfServers();
  const jobs = await runFio({
    file: 'speed.fio',
    sections: [job.section],
    seconds: bench.options.seconds,
    variables: { URI: loaded.server.uri() },
    folder: folder.path,
  });
  const used = cpuOfServers().map((after, index) => after - (before[index] as number));
  const wallSeconds = (performance.now() - started) / 1000;
  const known = sum(used) + ownCpuSeconds() - own;
  const foreign = Math.max(0, busyCpuSeconds() - busy - known);
  for (const file of loaded.files) await settle(file);
  const idle = all.flatMap(({ server }, index) =>
    server === loaded.server ? [] : [[server.name, (used[index] as number) / wallSeconds] as const],
  );
  return {
    ...(jobs.get(job.section) as FioJob),
    serverCpuSeconds: used[all.indexOf(loaded)] as number,
    foreignCpu: foreign / wallSeconds,
    idleCpu: Object.fromEntries(idle),
  };
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
