/** NBD URIs of exports, for who connects: `nbd://HOST[:PORT]/EXPORT`, `nbd+unix:///EXPORT?socket=PATH`. */

import { UsageError } from './errors.ts';
import { type ListenAddress, parseListenUri } from './nbd-uri.ts';

export interface ExportUri {
  readonly address: ListenAddress;
  readonly exportName: string;
}

/** @throws UsageError */
export function parseExportUri(uri: string): ExportUri {
  const [, server, path = '', query = ''] = /^([a-z+]+:\/\/[^/?#]*)(?:\/([^?#]*))?(\?.*)?$/is.exec(uri) ?? [];
  if (server === undefined) throw new UsageError('bad-uri', `"${uri}" is no NBD URI`);
  const address = parseListenUri(`${server}${query === '' ? '' : `/${query}`}`);
  if ('host' in address && (address.host.startsWith('-') || address.port === 0)) {
    throw new UsageError('bad-uri', `"${uri}" names nobody to connect to`);
  }
  try {
    return { address, exportName: decodeURIComponent(path) };
  } catch (error) {
    const text = `"${uri}" has a % that is not followed by two hexadecimal digits`;
    throw new UsageError('bad-uri', text, { cause: error });
  }
}
