/**
 * NBD URIs as addresses to listen on, and back: `nbd://HOST[:PORT]`, `nbd+unix:///?socket=PATH`. Parsed by hand: the
 * URL class reads a `+` in a query as a space, and takes hosts that are none.
 */

import { isIPv4, isIPv6 } from 'node:net';
import { resolve } from 'node:path';
import { UsageError } from './errors.ts';

export type ListenAddress = { readonly host: string; readonly port: number } | { readonly path: string };

/** Assigned to NBD by IANA. */
export const DEFAULT_PORT = 10809;
export const DEFAULT_LISTEN_URI = `nbd://127.0.0.1:${DEFAULT_PORT}`;

const FORMS = 'nbd://HOST:PORT or nbd+unix:///?socket=PATH';

export function parseListenUri(uri: string): ListenAddress {
  const [, scheme, authority = '', path = '', query] =
    /^([a-z+]+):\/\/([^/?#]*)([^?#]*)(?:\?(.*))?$/i.exec(uri) ?? [];
  switch (scheme?.toLowerCase()) {
    case 'nbd':
      refuseExportName(uri, path);
      if (query !== undefined)
        throw badUri(uri, 'takes no query: a socket path goes with nbd+unix:///?socket=PATH');
      return parseAuthority(uri, authority);
    case 'nbd+unix':
      refuseExportName(uri, path);
      if (authority !== '')
        throw badUri(uri, `names a host beside a unix socket: write nbd+unix:///?socket=PATH`);
      return { path: parseSocketPath(uri, query ?? '') };
    case 'nbds':
    case 'nbds+unix':
      throw badUri(uri, `asks for TLS, which is not there yet: write ${FORMS}`);
    default:
      throw badUri(uri, `is no NBD URI: write ${FORMS}`);
  }
}

/** The longest path of a unix socket: sun_path less the zero byte behind it. */
const PATH_BYTES_MAX = 107;

export function formatListenUri(address: ListenAddress): string {
  if ('path' in address) {
    return `nbd+unix:///?socket=${encodeURIComponent(address.path).replaceAll('%2F', '/')}`;
  }
  const host = isIPv6(address.host) ? `[${address.host}]` : address.host;
  return `nbd://${host}:${address.port}`;
}

function badUri(uri: string, what: string): UsageError {
  return new UsageError('bad-uri', `"${uri}" ${what}`);
}

function refuseExportName(uri: string, path: string): void {
  if (path === '' || path === '/') return;
  throw badUri(
    uri,
    'has an export name: an address to listen on has none, every file is exported under its own name',
  );
}

function parseAuthority(uri: string, authority: string): ListenAddress {
  const parts = /^(?:\[([^\]]*)\]|([^:[\]@]*))(?::(\d*))?$/.exec(authority);
  if (parts === null)
    throw badUri(uri, `has "${authority}", which is not HOST:PORT (IPv6 goes in [brackets])`);
  const [, bracketed, plain = '', portText] = parts;
  if (bracketed === undefined && plain === '') {
    throw badUri(uri, `names no host: write ${DEFAULT_LISTEN_URI} for this machine alone`);
  }
  const host = bracketed ?? plain;
  const digitsOnly = bracketed === undefined && /^[\d.]+$/.test(host);
  if ((bracketed !== undefined && !isIPv6(host)) || (digitsOnly && !isIPv4(host))) {
    throw badUri(uri, `has "${host}" for a host, which is no address`);
  }
  if (!/^[\w.:%-]+$/.test(host)) throw badUri(uri, `has "${host}" for a host, which is no name`);
  const port = portText === undefined || portText === '' ? DEFAULT_PORT : Number(portText);
  if (port > 65_535) throw badUri(uri, `has port ${portText}: ports go up to 65535 (0 takes a free one)`);
  return { host, port };
}

function parseSocketPath(uri: string, query: string): string {
  const parameters = query.split('&');
  const path = parameters[0]?.startsWith('socket=') ? parameters[0].slice('socket='.length) : '';
  if (parameters.length !== 1 || path === '') {
    throw badUri(uri, 'needs exactly one parameter: write nbd+unix:///?socket=PATH');
  }
  const decoded = resolve(decodeSocketPath(uri, path));
  if (decoded.includes('\0')) throw badUri(uri, 'has a zero byte in its path');
  const bytes = Buffer.byteLength(decoded);
  if (bytes > PATH_BYTES_MAX) {
    throw badUri(
      uri,
      `has a path of ${bytes} bytes, and ${PATH_BYTES_MAX} is the most: choose a shorter one`,
    );
  }
  return decoded;
}

function decodeSocketPath(uri: string, path: string): string {
  try {
    return decodeURIComponent(path);
  } catch (error) {
    throw new UsageError('bad-uri', `"${uri}" has a % that is not followed by two hexadecimal digits`, {
      cause: error,
    });
  }
}
