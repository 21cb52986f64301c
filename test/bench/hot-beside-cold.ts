/**
 * A reader whose file is in the page cache, alone and beside a reader whose file is not, on one server. A server
 * that waits for the disk on the thread that answers the hot reader shows here.
 *
 * A third run tells the disk's part from the processors': the neighbour reads the hot file, at the rate that the
 * cold one reached.
 */

import { type Bench, inTurn } from './bench.ts';
import { type FioJob, runFio } from './fio.ts';
import { hotBesideCold } from './jobs.ts';
import { dropFromPageCache, type Folder, makeFullFile, newFolder } from './places.ts';
import { diskReadBytes } from './proc.ts';
import { type BenchServer, type ServerName, servesFolders, startServer } from './servers.ts';

export const hotBytes = 256 * 2 ** 20;
export const coldBytes = 2 * 2 ** 30;
const dropEveryMs = 500;

export interface HotColdSample {
  readonly alone: FioJob;
  readonly besideCold: FioJob;
  readonly besideWarm: FioJob;
  readonly cold: FioJob;
  /** Bytes that the server had the disk read / bytes that the cold reader got: 1 or more when all were cold. */
  readonly coldShare: number;
}

export interface HotColdResult {
  readonly server: ServerName;
  readonly samples: readonly HotColdSample[];
}

function chosenServers({ options }: Bench): ServerName[] {
  // Needs two exports on one server, and a disk to be cold on.
  if (!options.jobs.includes(hotBesideCold) || !options.places.includes('disk')) return [];
  return options.servers.filter(servesFolders);
}

export function hotColdSteps(bench: Bench): number {
  const servers = chosenServers(bench).length;
  return servers === 0 ? 0 : 1 + servers * (1 + bench.options.rounds);
}

export async function measureHotBesideCold(bench: Bench): Promise<HotColdResult[]> {
  const names = chosenServers(bench);
  if (names.length === 0) return [];
  const exported = newFolder('disk');
  const scratch = newFolder('disk');
  const servers: BenchServer[] = [];
  try {
    await bench.step('disk: files for hot beside cold', async () => {
      await makeFullFile(exported.file('hot.img'), hotBytes);
      await makeFullFile(exported.file('cold.img'), coldBytes);
    });
    for (const name of names) {
      const server = await bench.step(`disk: starting ${name}`, () =>
        startServer(name, { folder: exported.path }),
      );
      if (server !== undefined) servers.push(server);
    }
    const samples = new Map<ServerName, HotColdSample[]>(servers.map(({ name }) => [name, []]));
    for (let round = 0; round < bench.options.rounds; round += 1) {
      for (const server of inTurn(servers, round)) {
        const what = `disk: ${hotBesideCold} on ${server.name}, round ${round + 1}`;
        const sample = await bench.step(what, () => measureOnce(bench, server, exported, scratch));
        if (sample !== undefined) samples.get(server.name)?.push(sample);
      }
    }
    return [...samples].map(([server, taken]) => ({ server, samples: taken }));
  } finally {
    for (const server of servers) await server.stop();
    exported.remove();
    scratch.remove();
  }
}

async function measureOnce(
  bench: Bench,
  server: BenchServer,
  exported: Folder,
  scratch: Folder,
): Promise<HotColdSample> {
  const reader = async (sections: readonly string[], rate = 1): Promise<(name: string) => FioJob> => {
    const jobs = await runFio({
      file: 'hot-beside-cold.fio',
      sections,
      seconds: bench.options.seconds,
      variables: {
        HOT_URI: server.uri('hot.img'),
        COLD_URI: server.uri('cold.img'),
        RATE: String(rate),
      },
      folder: scratch.path,
    });
    return (name) => jobs.get(name) as FioJob;
  };
  const alone = (await reader(['hot']))('hot');
  const coldFile = exported.file('cold.img');
  await dropFromPageCache(coldFile);
  const readBefore = diskReadBytes(server.pid);
  const both = await keepingCold(coldFile, () => reader(['hot', 'cold']));
  const readBytes = diskReadBytes(server.pid) - readBefore;
  const cold = both('cold');
  const warm = await reader(['hot', 'warm'], Math.max(1, Math.round(cold.iops)));
  return {
    alone,
    besideCold: both('hot'),
    besideWarm: warm('hot'),
    cold,
    coldShare: readBytes / cold.bytes,
  };
}

/** Drops the file from the page cache again and again while `work` runs: readahead has brought in neighbours. */
async function keepingCold<T>(file: string, work: () => Promise<T>): Promise<T> {
  const finished = new AbortController();
  const dropping = (async () => {
    while (!finished.signal.aborted) {
      await dropFromPageCache(file);
      await new Promise((wake) => setTimeout(wake, dropEveryMs));
    }
  })();
  try {
    return await work();
  } finally {
    finished.abort();
    await dropping;
  }
}
