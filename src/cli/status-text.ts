/** The cluster in words. */

import type { GatewayView, StatusView } from '../control-protocol/directory-api.ts';
import { formatOperation } from './operation.ts';
import { formatSize } from './size-text.ts';
import { STORAGE_COLUMNS } from './storage.ts';
import { type Column, formatTable } from './table.ts';

const GATEWAY_COLUMNS: readonly Column<GatewayView>[] = [
  { head: 'GATEWAY', cell: ({ name }) => name },
  { head: 'SITE', cell: ({ site }) => site },
  { head: 'STATE', cell: ({ state }) => state },
  { head: 'HOSTS', align: 'right', cell: ({ hosts }) => hosts },
  { head: 'REVISION', align: 'right', cell: ({ revision }) => revision },
  { head: 'ADDRESSES', cell: ({ uris }) => uris.join(' ') },
];

export function formatStatus(view: StatusView): string {
  const { count, bytes, notReady, suspended, newerEpoch } = view.volumes;
  const volumes = count === 1 ? '1 volume' : `${count} volumes`;
  const waiting = notReady.length === 0 ? '' : `; not ready: ${notReady.join(', ')}`;
  return [
    `cluster ${view.clusterId}: ${view.health} (revision ${view.revision})`,
    '',
    formatTable(view.storage, STORAGE_COLUMNS, 'no storage systems yet'),
    '',
    formatTable(view.gateways, GATEWAY_COLUMNS, 'no gateways yet'),
    '',
    `${volumes}, ${formatSize(bytes)}${waiting}`,
    ...suspended.map((name) => `volume ${name}: a copy does not follow (why: volary volume show ${name})`),
    ...newerEpoch.map(
      (name) =>
        `volume ${name}: its copies know more than the catalog, and nobody is served (volary volume show ${name})`,
    ),
    ...view.operations.map(formatOperation),
  ].join('\n');
}
