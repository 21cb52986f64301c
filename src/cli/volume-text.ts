/** A volume in words. */

import type { SegmentView, VolumeView } from '../control-protocol/directory-api.ts';
import { formatSize } from './size-text.ts';
import { type Column, formatTable } from './table.ts';

type CopyView = SegmentView['copies'][number];

interface Part {
  readonly segment: SegmentView;
  readonly copy: CopyView;
  /** The segment's first line: the others leave out what is the same. */
  readonly isFirst: boolean;
}

const COLUMNS: readonly Column<Part>[] = [
  {
    head: 'OFFSET',
    align: 'right',
    cell: ({ segment, isFirst }) => (isFirst ? formatSize(segment.offset) : ''),
  },
  {
    head: 'LENGTH',
    align: 'right',
    cell: ({ segment, isFirst }) => (isFirst ? formatSize(segment.length) : ''),
  },
  { head: 'STORAGE', cell: ({ copy }) => copy.storage },
  { head: 'SITE', cell: ({ copy }) => copy.site },
  { head: 'ROLE', cell: ({ copy }) => copy.role },
  { head: 'PAIR', cell: ({ copy }) => (copy.reason === null ? copy.pair : `${copy.pair} (${copy.reason})`) },
  {
    head: 'OUT OF SYNC',
    align: 'right',
    cell: ({ copy }) => (copy.role === 'primary' ? '-' : outOfSync(copy)),
  },
  { head: 'MODE', cell: ({ copy }) => copy.mode },
  { head: 'FILE', cell: ({ copy }) => copy.file ?? '-' },
];

/** Its primary may not have answered. */
export function outOfSync({
  outOfSyncBytes,
  outOfSyncKnown,
}: Pick<CopyView, 'outOfSyncBytes' | 'outOfSyncKnown'>): string {
  return outOfSyncKnown ? formatSize(outOfSyncBytes) : 'unknown';
}

export function formatVolume(volume: VolumeView): string {
  const group = volume.group === null ? '' : `, group ${volume.group}`;
  const operation = volume.operation === null ? '' : `, operation ${volume.operation}`;
  const parts = volume.segments.flatMap((segment) =>
    segment.copies.map((copy, index) => ({ segment, copy, isFirst: index === 0 })),
  );
  return [
    `volume ${volume.name}: ${formatSize(volume.size)}, ${volume.state}, epoch ${volume.epoch}${group}${operation}`,
    '',
    ...formatUris(volume),
    '',
    formatTable(parts, COLUMNS, 'no segments'),
  ].join('\n');
}

/** When it has just been made. */
export function formatMade(volume: VolumeView): string {
  const copies = volume.segments.flatMap((segment) => segment.copies);
  const namesOf = (role: (typeof copies)[number]['role']): string =>
    [...new Set(copies.filter((copy) => copy.role === role).map(({ storage }) => storage))].join(', ');
  const secondaries = namesOf('secondary');
  const withCopies = secondaries === '' ? '' : `, with copies on ${secondaries}`;
  return [
    `volume ${volume.name} of ${formatSize(volume.size)} is ready, on ${namesOf('primary')}${withCopies}`,
    ...formatUris(volume),
  ].join('\n');
}

function formatUris({ uris }: VolumeView): string[] {
  if (uris.length === 0) return ['no gateway is there yet'];
  return uris.map((uri) => `  ${uri}`);
}
