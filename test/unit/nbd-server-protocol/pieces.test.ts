/** The small parts: the byte queue, the string rules, the block size rules, the public surface. */

import { describe, expect, test } from 'vitest';
import { ByteQueue } from '../../../src/nbd-server-protocol/byte-queue.ts';
import { Limit } from '../../../src/nbd-server-protocol/constants.ts';
import * as surface from '../../../src/nbd-server-protocol/index.ts';
import { blockSizesProblem } from '../../../src/nbd-server-protocol/option-codec.ts';
import {
  decodeString,
  encodeString,
  encodeText,
  isProtocolString,
  quote,
} from '../../../src/nbd-server-protocol/strings.ts';
import { hex } from './lab.ts';

describe('ByteQueue', () => {
  test('gives back what was pushed, in order, from copies', () => {
    const queue = new ByteQueue(10_000);
    const chunk = Buffer.alloc(700);
    const out: Buffer[] = [];
    for (let i = 0; i < 12; i++) {
      chunk.fill(i);
      expect(queue.push(chunk)).toBe(true);
      chunk.fill(0xff);
      out.push(Buffer.from(queue.take(600)));
    }
    expect(queue.length).toBe(1200);
    out.push(queue.drain());
    expect(Buffer.concat(out)).toEqual(
      Buffer.concat(Array.from({ length: 12 }, (_, i) => Buffer.alloc(700, i))),
    );
    expect(queue.length).toBe(0);
  });

  test('takes nothing over its bound, nor gives what it does not hold', () => {
    const queue = new ByteQueue(10);
    expect(queue.push(Buffer.alloc(8))).toBe(true);
    expect(queue.push(Buffer.alloc(3))).toBe(false);
    expect(queue.length).toBe(8);
    queue.skip(8);
    expect(queue.push(Buffer.alloc(10))).toBe(true);
    expect(() => queue.take(11)).toThrow(/more than/);
    expect(() => queue.skip(11)).toThrow(/more than/);
  });
});

describe('strings', () => {
  test('what is allowed goes there and back, byte order marks included', () => {
    for (const text of ['', 'disk', 'Gerät 磁碟 💾', '\ufeffmark', 'n'.repeat(Limit.stringBytes)]) {
      expect(isProtocolString(text)).toBe(true);
      expect(decodeString(encodeString(text), 'it')).toBe(text);
    }
  });

  test('what is not allowed is refused both ways', () => {
    for (const text of ['a\0', '\ud800', 'é'.repeat(Limit.stringBytes / 2 + 1)]) {
      expect(isProtocolString(text)).toBe(false);
      expect(() => encodeString(text)).toThrow(/string rules/);
    }
    for (const bytes of [hex('00'), hex('c080'), hex('eda080'), Buffer.alloc(Limit.stringBytes + 1, 'n')]) {
      expect(() => decodeString(bytes, 'it')).toThrow(/^it /);
    }
  });

  test('texts are made to fit, between characters', () => {
    expect(encodeText('a\0b\ud800').toString('utf8')).toBe('a\ufffdb\ufffd');
    expect(encodeText('ab', 1).toString('utf8')).toBe('a');
    expect(encodeText('aé', 2).toString('utf8')).toBe('a');
    expect(encodeText('aé', 3).toString('utf8')).toBe('aé');
    expect(encodeText('💾💾', 7).toString('utf8')).toBe('💾');
    expect(quote('\u001b[31m')).toBe('"\\u001b[31m"');
    expect(quote('x'.repeat(1000)).length).toBeLessThan(100);
  });
});

test.each([
  [1, 512, 512, true],
  [65_536, 65_536, 0xffff_ffff, true],
  [512, 0x8000_0000, 0xffff_ffff, true],
  [0, 512, 512, false],
  [3, 512, 512, false],
  [131_072, 131_072, 131_072, false],
  [1, 256, 512, false],
  [1, 768, 1024, false],
  [4096, 512, 4096, false],
  [1, 4096, 4095, false],
])('block sizes %i, %i, %i: allowed %s', (minimum, preferred, maximumPayload, allowed) => {
  expect(blockSizesProblem({ minimum, preferred, maximumPayload }) === undefined).toBe(allowed);
});

test('the public surface', () => {
  expect(Object.keys(surface)).toEqual(
    expect.arrayContaining([
      'ServerHandshake',
      'ClientHandshake',
      'RequestDecoder',
      'RequestEncoder',
      'ReplyDecoder',
      'ReplyEncoder',
      'PendingRequest',
      'ProtocolError',
    ]),
  );
});
