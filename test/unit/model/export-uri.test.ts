import { expect, test } from 'vitest';
import { parseExportUri } from '../../../src/model/export-uri.ts';

test.each([
  ['nbd://127.0.0.1:10809/db', { host: '127.0.0.1', port: 10_809 }, 'db'],
  ['nbd://gw.example/db', { host: 'gw.example', port: 10_809 }, 'db'],
  ['nbd://[::1]:7/%E3%83%87%E3%83%BC%E3%82%BF', { host: '::1', port: 7 }, 'データ'],
  ['nbd://127.0.0.1:7/a/b', { host: '127.0.0.1', port: 7 }, 'a/b'],
  ['nbd://127.0.0.1:7', { host: '127.0.0.1', port: 7 }, ''],
  ['nbd+unix:///db?socket=/run/a%20b.sock', { path: '/run/a b.sock' }, 'db'],
])('%s', (uri, address, exportName) => {
  expect(parseExportUri(uri)).toEqual({ address, exportName });
});

test.each([
  '',
  'db',
  'http://127.0.0.1:7/db',
  'nbd://-d:7/db', // nbd-client would take it for an option
  'nbd://127.0.0.1:0/db',
  'nbd://127.0.0.1:7/db?socket=/x',
  'nbd://127.0.0.1:7/%zz',
  'nbd+unix:///db',
  'nbd://a b:7/db',
])('"%s" is refused', (uri) => {
  expect(() => parseExportUri(uri)).toThrow(expect.objectContaining({ code: 'bad-uri' }));
});
