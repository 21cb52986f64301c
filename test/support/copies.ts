/** Copies of volumes as a person sees them: what `volary volume show` says of pairs, and the files themselves. */

import type { SegmentView, VolumeView } from '../../src/control-protocol/directory-api.ts';
import { VolumeName } from '../../src/control-protocol/names.ts';
import { ControlError } from '../../src/model/errors.ts';
import type { Cluster } from './cluster.ts';
import { eventually, runOk } from './tools.ts';

type Copy = SegmentView['copies'][number];

/** What `volary volume show` prints, without the half second that a command takes to start. */
export function showVolume(cluster: Cluster, volume: string): Promise<VolumeView> {
  return cluster.client.volume(VolumeName.parse(volume));
}

export function primaryOf({ copies }: SegmentView): Copy {
  const primary = copies.find(({ role }) => role === 'primary');
  if (primary === undefined) throw new Error(`a segment without primary: ${JSON.stringify(copies)}`);
  return primary;
}

export function secondariesOf({ copies }: SegmentView): Copy[] {
  return copies.filter(({ role }) => role === 'secondary');
}

/** Storage systems that have a duplex secondary of that segment. */
export function promotable(segment: SegmentView): string[] {
  return secondariesOf(segment)
    .filter(({ pair }) => pair === 'duplex')
    .map(({ storage }) => storage);
}

/** `east-1>west-1 duplex, east-2>west-1 suspended (unreachable)` */
export function pairsText({ segments }: VolumeView): string {
  return segments
    .flatMap((segment) =>
      secondariesOf(segment).map(({ storage, pair, reason }) => {
        const why = reason === null ? '' : ` (${reason})`;
        return `${primaryOf(segment).storage}>${storage} ${pair}${why}`;
      }),
    )
    .join(', ');
}

/** Waits until every pair of the volume is duplex; what it is then. `check` throws when there is no use in waiting. */
export async function allDuplex(
  cluster: Cluster,
  volume: string,
  check: () => void = () => {},
  timeoutMs = 60_000,
): Promise<VolumeView> {
  let last = 'nothing was told';
  return eventually(
    `all pairs of ${volume} are duplex`,
    async () => {
      check();
      const view = await showVolume(cluster, volume).catch((error: unknown) => {
        if (!(error instanceof ControlError)) throw error;
        last = error.message;
      });
      if (view === undefined) return undefined;
      last = pairsText(view);
      const pairs = view.segments.flatMap(secondariesOf);
      return pairs.every(({ pair }) => pair === 'duplex') ? view : undefined;
    },
    timeoutMs,
  ).catch((error: unknown) => {
    throw new Error(`not duplex within ${timeoutMs} ms: ${last}`, { cause: error });
  });
}

/** Compares the real files of every pair that says duplex, byte by byte. How many there were. */
export async function expectEqualFiles(view: VolumeView): Promise<number> {
  let compared = 0;
  for (const segment of view.segments) {
    const primary = primaryOf(segment);
    for (const secondary of secondariesOf(segment).filter(({ pair }) => pair === 'duplex')) {
      const skip = `--ignore-initial=${primary.realOffset}:${secondary.realOffset}`;
      const files = [primary.file, secondary.file].map((file) => file ?? 'no file');
      await runOk('cmp', [skip, `--bytes=${segment.length}`, ...files]).catch((error: unknown) => {
        const which = `${view.name}, segment at ${segment.offset}: ${primary.storage} and ${secondary.storage}`;
        throw new Error(`duplex, and not equal: ${which}`, { cause: error });
      });
      compared += 1;
    }
  }
  return compared;
}
