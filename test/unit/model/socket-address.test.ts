import { describe, expect, test } from 'vitest';
import {
  formatHttpAddress,
  formatSocketAddress,
  isWildcard,
  parseHttpAddress,
  parseSocketAddress,
} from '../../../src/model/socket-address.ts';

describe('there and back', () => {
  test.each([
    ['127.0.0.1:0', { host: '127.0.0.1', port: 0 }],
    ['disk-1.example:65535', { host: 'disk-1.example', port: 65_535 }],
    ['[::1]:80', { host: '::1', port: 80 }],
  ])('%s', (text, address) => {
    expect(parseSocketAddress(text)).toEqual(address);
    expect(formatSocketAddress(address)).toBe(text);
    expect(parseHttpAddress(`http://${text}`)).toEqual(address);
    expect(formatHttpAddress(address)).toBe(`http://${text}`);
  });
});

const refusal = expect.objectContaining({ code: 'bad-uri' });

test.each([
  '',
  ':80',
  'host',
  'host:',
  'host:65536',
  '::1:80',
  '[::1]',
  '[host]:80',
  '1.2.3:80',
  'a b:80',
  'a/b:80',
])('"%s" is no address', (text) => {
  expect(() => parseSocketAddress(text)).toThrow(refusal);
});

test.each(['127.0.0.1:80', 'https://h:80', 'http://h', 'http://u@h:80', 'http://h:80/path', 'http://h:80?q'])(
  '"%s" is no address for HTTP',
  (text) => {
    expect(() => parseHttpAddress(text)).toThrow(refusal);
  },
);

test('an address that means every one of this machine', () => {
  for (const host of ['0.0.0.0', '::', '::0', '0:0:0:0:0:0:0:0', '::ffff:0.0.0.0', '0']) {
    expect(isWildcard(host), host).toBe(true);
  }
  for (const host of ['127.0.0.1', '::1', 'localhost', '0.0.0.0.example', '10.0.0.0', 'fe80::1%eth0', '0a']) {
    expect(isWildcard(host), host).toBe(false);
  }
});
