/** Storage systems and gateways as the directory calls them; tests put others in between. */

import type { GatewayRecord, StorageRecord } from '../control-protocol/catalog.ts';
import { GatewayClient, StorageClient } from '../control-protocol/peers-client.ts';

export type StoragePeer = Pick<
  StorageClient,
  | 'realVolume'
  | 'makeRealVolume'
  | 'changeRealVolume'
  | 'deleteRealVolume'
  | 'group'
  | 'configureGroup'
  | 'handOver'
>;
export type GatewayPeer = Pick<GatewayClient, 'hostsOf'>;

export interface Peers {
  storage(record: StorageRecord): StoragePeer;
  gateway(record: GatewayRecord): GatewayPeer;
}

export const httpPeers: Peers = {
  storage: ({ name, manage }) => new StorageClient(name, manage),
  gateway: ({ name, manage }) => new GatewayClient(name, manage),
};
