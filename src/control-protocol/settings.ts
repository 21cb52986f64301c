/**
 * What a role is told when it is started: one schema for its flags, its VOLARY_* variables, its YAML file and what a
 * topology says of it. Keys are the names of the flags. Texts become the domain's own values here.
 */

import { resolve } from 'node:path';
import { z } from 'zod';
import { parseDuration } from '../model/duration.ts';
import { VolaryError } from '../model/errors.ts';
import { type ListenAddress, parseListenUri } from '../model/nbd-uri.ts';
import { parseSize } from '../model/size.ts';
import {
  isWildcard,
  parseHttpAddress,
  parseSocketAddress,
  type SocketAddress,
} from '../model/socket-address.ts';
import { GatewayName, Host, SiteName, StorageName } from './names.ts';

const WORKERS_MAX = 64;
const LISTEN_MAX = 16;

/** A text that `parse` turns into a value, or refuses with a sentence. */
function parsed<T>(parse: (text: string) => T) {
  return z.string().transform((text, context): T => {
    try {
      return parse(text);
    } catch (error) {
      if (!(error instanceof VolaryError)) throw error;
      context.addIssue({ code: 'custom', message: error.message, params: { code: error.code } });
      return z.NEVER;
    }
  });
}

/** In YAML a number needs no quotes; on a command line everything is text. */
function numberOr<T extends z.ZodType<unknown, string>>(text: T) {
  return z
    .union([z.string(), z.int()], 'expected a text or a whole number')
    .transform((value) => String(value))
    .pipe(text);
}

const Folder = z
  .string()
  .min(1, 'a folder has a name')
  .transform((path) => resolve(path));
const HttpAddress = parsed(parseHttpAddress);
const PeerAddress = parsed(parseSocketAddress);
const NbdAddress = parsed(parseListenUri);
/** Others must be able to reach it: a storage system has no unix socket. */
const NbdSocketAddress = NbdAddress.transform((address, context) => {
  if ('host' in address) return address;
  context.addIssue({ code: 'custom', message: 'a storage system listens on nbd://HOST:PORT' });
  return z.NEVER;
});
/** In one text they stand with spaces between them. */
const NbdAddresses = z
  .union(
    [z.string().transform((uris) => uris.trim().split(/\s+/)), z.array(z.string())],
    'expected a text, or a list of texts',
  )
  .pipe(z.array(NbdAddress).min(1).max(LISTEN_MAX));
const DirectoryUrl = z
  .string()
  .refine((url) => /^http:\/\/[^/?#\s@]+\/?$/.test(url) && URL.canParse(url), 'write http://HOST:PORT');
const Workers = numberOr(
  z
    .string()
    .refine(
      (text) => /^[1-9]\d?$/.test(text) && Number(text) <= WORKERS_MAX,
      `expected a whole number from 1 to ${WORKERS_MAX}`,
    )
    .transform(Number),
);

const Advertise = Host.refine(
  (host) => !isWildcard(host),
  'that is every address of a machine, and none that others can connect to',
);

export const DirectorySettings = z.strictObject({
  data: Folder,
  listen: HttpAddress,
});
export type DirectorySettings = z.output<typeof DirectorySettings>;

export const StorageSettings = z.strictObject({
  name: StorageName,
  site: SiteName,
  data: Folder,
  listen: NbdSocketAddress,
  peer: PeerAddress,
  manage: HttpAddress,
  directory: DirectoryUrl,
  capacity: numberOr(parsed(parseSize)).optional(),
  advertise: Advertise.optional(),
});
export type StorageSettings = z.output<typeof StorageSettings>;

export const GatewaySettings = z.strictObject({
  name: GatewayName,
  site: SiteName,
  data: Folder,
  listen: NbdAddresses,
  manage: HttpAddress,
  directory: DirectoryUrl,
  advertise: Advertise.optional(),
  workers: Workers,
  reconnect: parsed(parseDuration).optional(),
});
export type GatewaySettings = z.output<typeof GatewaySettings>;

/** What a storage system or gateway listens on, by the key of the setting. */
export interface MemberAddresses {
  readonly listen: ListenAddress | readonly ListenAddress[];
  readonly peer?: SocketAddress;
  readonly manage: SocketAddress;
}

/** The first wildcard, which nobody else can be told: then there has to be `advertise`. */
export function wildcardAmong({
  listen,
  peer,
  manage,
}: MemberAddresses): { key: string; host: string } | undefined {
  const listened = [listen].flat().flatMap((address) => ('host' in address ? [address.host] : []));
  const hosts: [key: string, hosts: string[]][] = [
    ['listen', listened],
    ['peer', peer === undefined ? [] : [peer.host]],
    ['manage', [manage.host]],
  ];
  for (const [key, candidates] of hosts) {
    const host = candidates.find(isWildcard);
    if (host !== undefined) return { key, host };
  }
  return undefined;
}

/** The environment variable of a setting. */
export function variableOf(key: string): string {
  return `VOLARY_${key.toUpperCase()}`;
}

/** Of all roles. */
export const SETTING_VARIABLES: ReadonlySet<string> = new Set(
  [DirectorySettings, StorageSettings, GatewaySettings].flatMap(({ shape }) =>
    Object.keys(shape).map(variableOf),
  ),
);
