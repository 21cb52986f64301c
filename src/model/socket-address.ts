/** Addresses to listen on, or to be found at: `HOST:PORT` and `http://HOST:PORT`, and back. */

import { isIPv4, isIPv6 } from 'node:net';
import { UsageError } from './errors.ts';

/** Port 0 takes a free one. */
export interface SocketAddress {
  readonly host: string;
  readonly port: number;
}

/** @throws UsageError `bad-uri` */
export function parseSocketAddress(text: string): SocketAddress {
  const [, bracketed, plain = '', portText = ''] = /^(?:\[([^\]]*)\]|([\w.%-]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  const port = portText === '' ? Number.NaN : Number(portText);
  const looksLikeAddress = bracketed !== undefined || /^[\d.]+$/.test(host);
  if (!(port <= 65_535) || (looksLikeAddress && !isIPv4(host) && !isIPv6(host))) {
    throw new UsageError(
      'bad-uri',
      `"${text}" is no HOST:PORT (IPv6 goes in [brackets], ports go up to 65535, 0 takes a free one)`,
    );
  }
  return { host, port };
}

export function formatSocketAddress({ host, port }: SocketAddress): string {
  return `${isIPv6(host) ? `[${host}]` : host}:${port}`;
}

const WILDCARDS: readonly string[] = ['0.0.0.0', '[::]', '[::ffff:0:0]'];

/** Every address of this machine: to listen on, never to connect to. However it is written (`0`, `::0`). */
export function isWildcard(host: string): boolean {
  const url = `http://${isIPv6(host) ? `[${host}]` : host}`; // URLs have one way to write each address
  return URL.canParse(url) && WILDCARDS.includes(new URL(url).hostname);
}

/** @throws UsageError `bad-uri` */
export function parseHttpAddress(text: string): SocketAddress {
  const [, authority] = /^http:\/\/([^/?#@]+)\/?$/i.exec(text) ?? [];
  if (authority === undefined) {
    throw new UsageError('bad-uri', `"${text}" is no address for HTTP: write http://HOST:PORT`);
  }
  return parseSocketAddress(authority);
}

export function formatHttpAddress(address: SocketAddress): string {
  return `http://${formatSocketAddress(address)}`;
}
