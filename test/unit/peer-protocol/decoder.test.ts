import { describe, expect, test } from 'vitest';
import type { Message } from '../../../src/peer-protocol/codec.ts';
import { seededRandom, testRandom } from '../../support/random.ts';
import { decode, encoded, randomBytes, randomPieces, STREAMS } from './lab.ts';

describe.each(STREAMS)('$phase', ({ phase, messages }) => {
  const stream = Buffer.concat(messages.map(encoded));

  test('comes out as it went in, from every split', () => {
    for (let at = 0; at <= stream.length; at++) {
      const { messages: taken, error } = decode(phase, [stream.subarray(0, at), stream.subarray(at)]);
      expect(error).toBeUndefined();
      expect(taken, `split at ${at}`).toEqual(messages);
    }
  });

  test('comes out as it went in, byte by byte', () => {
    const bytes = Array.from(stream, (_byte, at) => stream.subarray(at, at + 1));
    expect(decode(phase, bytes)).toMatchObject({ messages, error: undefined });
  });

  test('comes out as it went in, from random pieces', () => {
    const random = testRandom(`random pieces of ${phase}`);
    for (let round = 0; round < 200; round++) {
      const pieces = randomPieces(stream, random, 1 + random.below(300));
      expect(decode(phase, pieces)).toMatchObject({ messages, error: undefined });
    }
  });

  test('is nothing before its last byte', () => {
    const last = encoded(messages.at(-1) as Message).length;
    for (let missing = 1; missing <= last; missing++) {
      const { messages: taken } = decode(phase, [stream.subarray(0, stream.length - missing)]);
      expect(taken).toEqual(messages.slice(0, -1));
    }
  });
});

test('payloads of all sizes stay as they are while more is received into the same memory', () => {
  const random = seededRandom(4);
  const sizes = [1, 511, 4096, 32_768, 32_769, 65_536, 65_537, 300_000];
  const writes = sizes.map((length, i): Message => {
    const payload = randomBytes(random, length);
    return { kind: 'write', seq: i + 1, confirmed: 0, offset: 0, length, fua: false, payload };
  });
  const stream = Buffer.concat(writes.map(encoded));
  const area = Buffer.alloc(70_000);
  function* receive(): Generator<Buffer> {
    for (let at = 0; at < stream.length; at += area.length) {
      yield area.subarray(0, stream.copy(area, 0, at, at + area.length));
    }
    area.fill(0);
  }
  const { messages, error } = decode('from-primary', receive());
  expect(error).toBeUndefined();
  expect(messages.length).toBe(writes.length);
  for (const [i, message] of messages.entries()) {
    const sent = writes[i];
    if (message.kind !== 'write' || sent?.kind !== 'write') throw new Error('only writes were sent');
    expect(message.payload.equals(sent.payload), `${sent.length} bytes`).toBe(true);
  }
});
