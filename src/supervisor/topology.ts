/**
 * Which roles make a cluster on one machine, where each listens, and how each is started. A role has the same
 * ports in every life: hosts and other roles find it again. So port 0 has no place here.
 */

import { join } from 'node:path';
import { z } from 'zod';
import { GatewayName, StorageName } from '../control-protocol/names.ts';
import {
  DirectorySettings,
  GatewaySettings,
  StorageSettings,
  wildcardAmong,
} from '../control-protocol/settings.ts';
import { DEFAULT_PORT, formatListenUri } from '../model/nbd-uri.ts';
import { formatHttpAddress, formatSocketAddress, type SocketAddress } from '../model/socket-address.ts';

/** Folders in the cluster's own that belong to no storage system and no gateway. */
const RESERVED_NAMES = ['directory', 'supervisor'];

const ownKeys = { name: true, data: true, directory: true } as const;

export const Topology = z
  .strictObject({
    directory: DirectorySettings.omit({ data: true }),
    gateways: z.record(GatewayName, GatewaySettings.omit(ownKeys).partial({ workers: true })),
    storage: z.record(StorageName, StorageSettings.omit(ownKeys)),
  })
  .superRefine((topology, context) => {
    const refuse = (path: string[], message: string) => context.addIssue({ code: 'custom', path, message });
    const seen = new Set<string>(RESERVED_NAMES);
    for (const kind of ['gateways', 'storage'] as const) {
      for (const name of Object.keys(topology[kind])) {
        if (seen.has(name)) refuse([kind, name], `the name "${name}" is taken: choose another`);
        seen.add(name);
      }
    }
    for (const kind of ['gateways', 'storage'] as const) {
      for (const [name, settings] of Object.entries(topology[kind])) {
        const found = settings.advertise === undefined ? wildcardAmong(settings) : undefined;
        if (found === undefined) continue;
        const text = `"${found.host}" is every address of this machine, and others are to be told one: add advertise: HOST`;
        refuse([kind, name, found.key], text);
      }
    }
    const owners = new Map<string, string>();
    for (const { path, address } of addressesOf(topology)) {
      const text = formatSocketAddress(address);
      const owner = owners.get(text);
      if (address.port === 0)
        refuse(path, 'a free port (0) would be another one after a restart: choose one');
      else if (owner !== undefined) refuse(path, `${text} is the address of ${owner} already`);
      owners.set(text, path.join('.'));
    }
  });
export type Topology = z.output<typeof Topology>;

interface NamedAddress {
  /** Keys that lead to it: `storage`, `east-1`, `peer`. */
  readonly path: string[];
  readonly address: SocketAddress;
}

/** Everything that somebody will listen on. */
export function addressesOf(topology: z.output<typeof Topology>): NamedAddress[] {
  const { directory, gateways, storage } = topology;
  return [
    { path: ['directory', 'listen'], address: directory.listen },
    ...Object.entries(gateways).flatMap(([name, { listen, manage }]) => [
      ...listen.flatMap((address) =>
        'path' in address ? [] : [{ path: ['gateways', name, 'listen'], address }],
      ),
      { path: ['gateways', name, 'manage'], address: manage },
    ]),
    ...Object.entries(storage).flatMap(([name, { listen, peer, manage }]) => [
      { path: ['storage', name, 'listen'], address: listen },
      { path: ['storage', name, 'peer'], address: peer },
      { path: ['storage', name, 'manage'], address: manage },
    ]),
  ];
}

/** Two sites, two storage systems and a gateway in each. */
export function defaultTopology(): Topology {
  const sites = ['east', 'west'];
  const local = (port: number) => `127.0.0.1:${port}`;
  const storage = sites.flatMap((site) => [1, 2].map((number) => ({ site, name: `${site}-${number}` })));
  return Topology.parse({
    directory: { listen: `http://${local(9800)}` },
    gateways: Object.fromEntries(
      sites.map((site, index) => [
        `${site}-gw`,
        { site, listen: `nbd://${local(DEFAULT_PORT + index)}`, manage: `http://${local(10_851 + index)}` },
      ]),
    ),
    storage: Object.fromEntries(
      storage.map(({ site, name }, index) => [
        name,
        {
          site,
          listen: `nbd://${local(10_821 + index)}`,
          peer: local(10_831 + index),
          manage: `http://${local(10_841 + index)}`,
        },
      ]),
    ),
  });
}

export type RoleKind = 'directory' | 'storage' | 'gateway';

/** A role as the supervisor starts it. */
export interface RolePlan {
  readonly kind: RoleKind;
  readonly name: string;
  /** "" for the directory, which is everybody's. */
  readonly site: string;
  readonly data: string;
  /** Of `volary`. */
  readonly args: readonly string[];
}

/** @param folder Each role has a folder of its name in it. */
export function plansOf(topology: Topology, folder: string): RolePlan[] {
  const url = formatHttpAddress(reachable(topology.directory.listen));
  const plan = (kind: RoleKind, name: string, site: string, flags: Flags): RolePlan => {
    const data = join(folder, name);
    return { kind, name, site, data, args: ['run', kind, ...argumentsOf({ data, ...flags })] };
  };
  const member = { directory: url };
  return [
    plan('directory', 'directory', '', { listen: formatHttpAddress(topology.directory.listen) }),
    ...Object.entries(topology.storage).map(([name, { site, listen, peer, manage, ...rest }]) =>
      plan('storage', name, site, {
        ...{ name, site, ...member, ...rest },
        listen: formatListenUri(listen),
        peer: formatSocketAddress(peer),
        manage: formatHttpAddress(manage),
      }),
    ),
    ...Object.entries(topology.gateways).map(([name, { site, listen, manage, reconnect, ...rest }]) =>
      plan('gateway', name, site, {
        ...{ name, site, ...member, ...rest },
        listen: listen.map(formatListenUri),
        manage: formatHttpAddress(manage),
        reconnect: reconnect === undefined ? undefined : `${reconnect}ms`,
      }),
    ),
  ];
}

type Flags = Readonly<Record<string, string | number | readonly string[] | undefined>>;

/** `--key=value`: a value may begin with a dash. */
function argumentsOf(flags: Flags): string[] {
  return Object.entries(flags).flatMap(([key, value]) =>
    value === undefined ? [] : [value].flat().map((one) => `--${key}=${one}`),
  );
}

/** "Everywhere" is an address to listen on, not one to call. */
function reachable({ host, port }: SocketAddress): SocketAddress {
  if (host === '0.0.0.0') return { host: '127.0.0.1', port };
  return { host: host === '::' ? '::1' : host, port };
}
