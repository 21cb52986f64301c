import fc from 'fast-check';
import { expect, test } from 'vitest';
import { formatListenUri, parseListenUri } from '../../../src/model/nbd-uri.ts';

test.each([
  ['nbd://127.0.0.1:10809', { host: '127.0.0.1', port: 10809 }],
  ['nbd://127.0.0.1', { host: '127.0.0.1', port: 10809 }],
  ['nbd://127.0.0.1/', { host: '127.0.0.1', port: 10809 }],
  ['nbd://localhost:0', { host: 'localhost', port: 0 }],
  ['NBD://storage-1.example:65535', { host: 'storage-1.example', port: 65535 }],
  ['nbd://[::1]:10810', { host: '::1', port: 10810 }],
  ['nbd://[::]', { host: '::', port: 10809 }],
  ['nbd+unix:///?socket=/run/v.sock', { path: '/run/v.sock' }],
  ['nbd+unix://?socket=/run/v.sock', { path: '/run/v.sock' }],
  ['nbd+unix:///?socket=/tmp/a%20b+c', { path: '/tmp/a b+c' }],
  ['nbd+unix:///?socket=v.sock', { path: `${process.cwd()}/v.sock` }],
])('%s', (uri, address) => {
  expect(parseListenUri(uri)).toEqual(address);
});

test.each([
  ['nothing', '', /no NBD URI/],
  ['a host and a port alone', '127.0.0.1:10809', /no NBD URI/],
  ['another scheme', 'http://127.0.0.1:10809', /no NBD URI/],
  ['no slashes', 'nbd:127.0.0.1', /no NBD URI/],
  ['a fragment', 'nbd://127.0.0.1#x', /no NBD URI/],
  ['TLS', 'nbds://127.0.0.1', /TLS, which is not there yet/],
  ['TLS on a unix socket', 'nbds+unix:///?socket=/x', /TLS, which is not there yet/],
  ['an export name', 'nbd://127.0.0.1:10809/disk', /has an export name/],
  ['an export name on a unix socket', 'nbd+unix:///disk?socket=/x', /has an export name/],
  ['no host', 'nbd://', /names no host/],
  ['no host in front of the port', 'nbd://:10809', /names no host/],
  ['a port too high', 'nbd://127.0.0.1:65536', /port 65536/],
  ['a port that is no number', 'nbd://127.0.0.1:x', /is not HOST:PORT/],
  ['an address that is none', 'nbd://127.0.0.256', /no address/],
  ['a number for a host', 'nbd://10809', /no address/],
  ['IPv6 without brackets', 'nbd://::1:10809', /is not HOST:PORT/],
  ['no IPv6 in brackets', 'nbd://[localhost]:10809', /no address/],
  ['a user', 'nbd://me@host', /is not HOST:PORT/],
  ['characters that no host has', 'nbd://a b', /which is no name/],
  ['a query', 'nbd://127.0.0.1?socket=/x', /takes no query/],
  ['no socket', 'nbd+unix:///', /exactly one parameter/],
  ['an empty socket', 'nbd+unix:///?socket=', /exactly one parameter/],
  ['another parameter', 'nbd+unix:///?socket=/x&tls=1', /exactly one parameter/],
  ['a host beside the socket', 'nbd+unix://host/?socket=/x', /names a host/],
  ['a zero byte', 'nbd+unix:///?socket=%00abc', /zero byte/],
  ['a path that the kernel would cut short', `nbd+unix:///?socket=/${'s'.repeat(107)}`, /107 is the most/],
  ['a broken escape', 'nbd+unix:///?socket=/x%zz', /hexadecimal/],
])('%s is refused', (_, uri, sentence) => {
  const refusal = expect.objectContaining({ code: 'bad-uri', message: expect.stringMatching(sentence) });
  expect(() => parseListenUri(uri)).toThrow(refusal);
});

test('an address that is written as a URI is read as the same address', () => {
  const path = fc
    .string({ unit: 'grapheme', minLength: 1 })
    .map((name) => `/tmp/${name.replaceAll(/[/.\0]/g, '-')}`);
  const port = fc.integer({ min: 0, max: 65_535 });
  const address = fc.oneof(
    fc.record({ path }),
    fc.record({ host: fc.oneof(fc.ipV4(), fc.constantFrom('::1', '::', 'fe80::1', 'localhost')), port }),
  );
  fc.assert(
    fc.property(address, (given) => {
      expect(parseListenUri(formatListenUri(given))).toEqual(given);
    }),
  );
});
