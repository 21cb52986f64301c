/** How long a server takes to start on a 4 TiB file that is one hole, and whether it trims 4 GiB of it at once. */

import { run } from '../support/tools.ts';
import { type Bench, inTurn } from './bench.ts';
import { start } from './jobs.ts';
import { allocatedBytes, makeSparseFile, newFolder, type PlaceName } from './places.ts';
import { libnbdScript, pythonCommand } from './python.ts';
import { type ServerName, startServer } from './servers.ts';

export type TrimResult =
  | { readonly seconds: number; readonly leftBytes: number }
  | { readonly error: string };

export interface StartSample {
  readonly readyMs: number;
  readonly trim: TrimResult;
}

export interface StartResult {
  readonly place: PlaceName;
  readonly server: ServerName;
  readonly samples: readonly StartSample[];
}

const fileBytes = 4 * 2 ** 40;

export function startSteps({ options }: Bench): number {
  if (!options.jobs.includes(start)) return 0;
  return options.places.length * options.rounds * options.servers.length;
}

export async function measureStart(bench: Bench): Promise<StartResult[]> {
  const { options } = bench;
  const results: StartResult[] = [];
  if (!options.jobs.includes(start)) return results;
  for (const place of options.places) {
    const samples = new Map<ServerName, StartSample[]>(options.servers.map((name) => [name, []]));
    for (let round = 0; round < options.rounds; round += 1) {
      for (const name of inTurn(options.servers, round)) {
        const what = `${place}: ${start} of ${name}, round ${round + 1}`;
        const sample = await bench.step(what, () => measureOnce(place, name));
        if (sample !== undefined) samples.get(name)?.push(sample);
      }
    }
    for (const [server, taken] of samples) results.push({ place, server, samples: taken });
  }
  return results;
}

async function measureOnce(place: PlaceName, name: ServerName): Promise<StartSample> {
  const folder = newFolder(place);
  const file = folder.file('sparse.img');
  try {
    await makeSparseFile(file, fileBytes);
    const server = await startServer(name, { file });
    try {
      return { readyMs: server.readyMs, trim: await trim(server.uri(), file) };
    } finally {
      await server.stop();
    }
  } finally {
    folder.remove();
  }
}

/** A server may refuse so large a request: that is a result, not a failure of the bench. */
async function trim(uri: string, file: string): Promise<TrimResult> {
  const { code, stdout, stderr } = await run(pythonCommand(), [libnbdScript('large-trim.py'), uri]);
  if (code !== 0) return { error: stderr.trim().split('\n').at(-1) ?? `exit ${code}` };
  return { seconds: Number(stdout), leftBytes: await allocatedBytes(file) };
}
