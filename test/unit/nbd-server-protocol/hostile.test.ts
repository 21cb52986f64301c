/**
 * Whatever bytes arrive, nothing but a ProtocolError or a 'close' comes of it, and nothing is kept beyond the
 * bounds. Bytes are random, or a right conversation with some bytes changed, which gets further in.
 */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ClientHandshake } from '../../../src/nbd-server-protocol/client-handshake.ts';
import {
  Command,
  type HeaderStyle,
  Limit,
  Option,
  OptionReply,
} from '../../../src/nbd-server-protocol/constants.ts';
import { ProtocolError } from '../../../src/nbd-server-protocol/errors.ts';
import { REPLY_WHOLE_BYTES } from '../../../src/nbd-server-protocol/reply-decoder.ts';
import { ServerHandshake } from '../../../src/nbd-server-protocol/server-handshake.ts';
import { testRandom } from '../../support/random.ts';
import {
  cut,
  driveClient,
  driveServer,
  FIXED_NEWSTYLE,
  GREETING,
  hex,
  infoData,
  metaData,
  option,
  reply,
  u32,
} from './lab.ts';
import { decodeReplies, decodeRequests, pending, ReplyCollector } from './wire-lab.ts';

const SERVER_WIRE = Buffer.concat([
  FIXED_NEWSTYLE,
  option(Option.structuredReply),
  option(Option.list),
  option(Option.setMetaContext, metaData('disk', ['base:allocation'])),
  option(Option.listMetaContext, metaData('', ['base:', 'x-volary:one'])),
  option(Option.extendedHeaders),
  option(Option.info, infoData('', [1, 2, 3])),
  option(Option.go, infoData('disk', [3])),
]);
const CLIENT_WIRE = Buffer.concat([
  GREETING,
  reply(Option.extendedHeaders, OptionReply.ack),
  reply(
    Option.setMetaContext,
    OptionReply.metaContext,
    Buffer.concat([u32(1), Buffer.from('base:allocation')]),
  ),
  reply(Option.setMetaContext, OptionReply.ack),
  reply(Option.go, OptionReply.info, hex('0003 00000200 00001000 00100000')),
  reply(Option.go, OptionReply.info, hex('0000 0000000123456000 008d')),
  reply(Option.go, OptionReply.ack),
]);
const REPLIES = hex(
  '668e33ef 0000 0001 0000000000000001 00000018 0000000000100000',
  '11'.repeat(16),
  '668e33ef 0000 0002 0000000000000001 0000000c 0000000000100010 00000ff0',
  '668e33ef 0001 8002 0000000000000001 00000010 00000005 0002 6869 0000000000100001',
  '67446698 00000000 0000000000000002',
  '668e33ef 0001 0005 0000000000000003 0000000c 00000007 00001000 00000003',
);
const REQUESTS = [
  pending(1),
  pending(2, { command: Command.trim }),
  pending(3, { command: Command.blockStatus, contextIds: [7] }),
];

/** `wire` with some bytes changed, or bytes out of the blue, in random pieces. */
function hostile(wire: Buffer): fc.Arbitrary<Buffer[]> {
  const change = fc.record({ at: fc.nat(wire.length - 1), to: fc.nat(255) });
  const changed = fc.array(change, { minLength: 1, maxLength: 4 }).map((changes) => {
    const bytes = Buffer.from(wire);
    for (const { at, to } of changes) bytes[at] = to;
    return bytes;
  });
  const any = fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes));
  const tail = fc
    .tuple(fc.nat(wire.length), any)
    .map(([end, bytes]) => Buffer.concat([wire.subarray(0, end), bytes]));
  return fc
    .tuple(fc.oneof(changed, any, tail), fc.array(fc.nat(wire.length), { maxLength: 10 }))
    .map(([bytes, places]) => cut(bytes, places));
}

const runs = (what: string) => ({ seed: testRandom(what).seed, numRuns: 2000 });

/** Runs and returns the ProtocolError; any other exception fails the test. */
function protocolErrorOf(run: () => void): ProtocolError | undefined {
  try {
    run();
    return undefined;
  } catch (error) {
    if (error instanceof ProtocolError) return error;
    throw error;
  }
}

test('the server handshake ends well, closes, or waits', () => {
  fc.assert(
    fc.property(hostile(SERVER_WIRE), (chunks) => {
      const machine = new ServerHandshake();
      const { last } = driveServer(machine, chunks);
      expect(['need-bytes', 'close', 'ready']).toContain(last.kind);
      expect(machine.bufferedBytes).toBeLessThanOrEqual(Limit.optionBytes);
    }),
    runs('hostile to the server handshake'),
  );
});

test('the client handshake ends well, fails, or waits', () => {
  const goal = { exportName: 'disk', headerStyle: 'extended', metaContexts: ['base:allocation'] } as const;
  fc.assert(
    fc.property(hostile(CLIENT_WIRE), fc.boolean(), (chunks, end) => {
      const machine = new ClientHandshake({ kind: 'connect', ...goal, requestBlockSizes: true, useGo: true });
      let { last } = driveClient(machine, chunks);
      if (end && last.kind === 'need-bytes') {
        machine.end();
        last = machine.next();
      }
      expect(end ? ['failed', 'ready'] : ['need-bytes', 'failed', 'ready']).toContain(last.kind);
      expect(machine.bufferedBytes).toBeLessThanOrEqual(Limit.optionBytes);
    }),
    runs('hostile to the client handshake'),
  );
});

test('the reply decoder throws ProtocolError, and waits for no more than a bounded piece', () => {
  fc.assert(
    fc.property(hostile(REPLIES), (chunks) => {
      protocolErrorOf(() => {
        const { left } = decodeReplies('structured', REQUESTS, chunks);
        expect(left.length).toBeLessThan(REPLY_WHOLE_BYTES);
      });
    }),
    runs('hostile to the reply decoder'),
  );
});

describe.each(['structured', 'extended'] as const)('the request decoder, %s', (style: HeaderStyle) => {
  const wire =
    style === 'extended'
      ? hex('21e41c71 0021 0001', '00'.repeat(16), '0000000000000004 61626364')
      : hex('25609513 0000 0001', '00'.repeat(16), '00000004 61626364');
  test('throws ProtocolError, and waits for no more than a header', () => {
    fc.assert(
      fc.property(hostile(Buffer.concat([wire, wire, wire])), (chunks) => {
        protocolErrorOf(() => expect(decodeRequests(style, chunks).left.length).toBeLessThan(32));
      }),
      runs(`hostile to the request decoder ${style}`),
    );
  });
});

test('the longest reply that must be there at once fits into REPLY_WHOLE_BYTES', () => {
  const payload = REPLY_WHOLE_BYTES - 32;
  const wire = Buffer.alloc(20 + payload);
  hex('668e33ef 0001 8001 0000000000000002').copy(wire);
  wire.writeUInt32BE(payload, 16);
  wire.writeUInt32BE(5, 20);
  const sink = new ReplyCollector(REQUESTS);
  const whole = decodeReplies('structured', REQUESTS, [wire], sink);
  expect(whole.events.map(({ kind }) => kind)).toEqual(['error', 'done']);
  wire.writeUInt32BE(payload + 1, 16);
  expect(protocolErrorOf(() => decodeReplies('structured', REQUESTS, [wire]))?.code).toBe('bad-message');
});
