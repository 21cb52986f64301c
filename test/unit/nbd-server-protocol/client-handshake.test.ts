/** The client's handshake: what it does with each reply, golden bytes, every split, and every breach. */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ClientHandshake, type ClientStep } from '../../../src/nbd-server-protocol/client-handshake.ts';
import { Limit, Option, OptionReply, TransmissionFlag } from '../../../src/nbd-server-protocol/constants.ts';
import type { ConnectGoal } from '../../../src/nbd-server-protocol/session.ts';
import { testRandom } from '../../support/random.ts';
import {
  cut,
  driveClient,
  everyCut,
  FIXED_NEWSTYLE,
  GREETING,
  hex,
  parseOptions,
  reply,
  throughOneBuffer,
  toHex,
  u32,
} from './lab.ts';

const CONNECT: ConnectGoal = {
  kind: 'connect',
  exportName: 'disk',
  headerStyle: 'extended',
  metaContexts: ['base:allocation'],
  requestBlockSizes: true,
  useGo: true,
};
const ALLOCATION = Buffer.concat([u32(7), Buffer.from('base:allocation')]);
const INFO_EXPORT = hex('0000 0000000123456000 008d');

type Stage = 'list' | 'extendedHeaders' | 'structuredReply' | 'setMetaContext' | 'go';
type Answer = keyof typeof OptionReply | 'unknown error' | 'unknown';

/** What the server says until the option of this stage is out. */
const BEFORE: Record<Stage, readonly Buffer[]> = {
  list: [],
  extendedHeaders: [],
  structuredReply: [reply(Option.extendedHeaders, OptionReply.errUnsup)],
  setMetaContext: [
    reply(Option.extendedHeaders, OptionReply.errUnsup),
    reply(Option.structuredReply, OptionReply.ack),
  ],
  go: [
    reply(Option.extendedHeaders, OptionReply.errUnsup),
    reply(Option.structuredReply, OptionReply.ack),
    reply(Option.setMetaContext, OptionReply.ack),
  ],
};
const DATA: Partial<Record<Answer, Buffer>> = {
  server: Buffer.concat([u32(4), Buffer.from('disk')]),
  info: INFO_EXPORT,
  metaContext: ALLOCATION,
};
const TYPE: Record<Answer, number> = { ...OptionReply, 'unknown error': 0x8000_1234, unknown: 77 };

const REFUSED = 'abort, failed refused';
const BREACH = 'failed bad-message';
const EVERYWHERE = {
  errTlsReqd: 'abort, failed tls-required',
  errShutdown: 'abort, failed shutdown',
  unknown: BREACH,
};
const NO_REPLIES = { server: BREACH, info: BREACH, metaContext: BREACH };

/** The same answer to every error but those that end all. */
function errors(expected: string) {
  return {
    errUnsup: expected,
    errPolicy: expected,
    errInvalid: expected,
    errPlatform: expected,
    errUnknown: expected,
    errBlockSizeReqd: expected,
    errTooBig: expected,
    errExtHeaderReqd: expected,
    'unknown error': expected,
  };
}

const TABLE: Record<Stage, Record<Answer, string>> = {
  list: { ...EVERYWHERE, ...NO_REPLIES, ...errors(REFUSED), ack: 'abort, listed', server: 'waits' },
  extendedHeaders: { ...EVERYWHERE, ...NO_REPLIES, ...errors('structuredReply'), ack: 'setMetaContext' },
  structuredReply: { ...EVERYWHERE, ...NO_REPLIES, ...errors('go'), ack: 'setMetaContext' },
  setMetaContext: {
    ...EVERYWHERE,
    ...NO_REPLIES,
    ...errors('go'),
    ack: 'go',
    metaContext: 'waits',
    // Of the export, not of its contexts: when it comes back before GO, the session would lack them for good.
    errUnknown: 'abort, failed unknown-export',
    errPolicy: REFUSED,
  },
  go: {
    ...EVERYWHERE,
    ...NO_REPLIES,
    ...errors(REFUSED),
    ack: BREACH, // without NBD_INFO_EXPORT
    info: 'waits',
    errUnsup: 'exportName',
    errUnknown: 'abort, failed unknown-export',
  },
};

function describeStep(sent: readonly string[], last: ClientStep): string {
  const words = [...sent];
  if (last.kind === 'failed') words.push(`failed ${last.error.code}`);
  else if (last.kind !== 'need-bytes') words.push(last.kind);
  return words.join(', ') || 'waits';
}

describe.each(Object.keys(TABLE) as Stage[])('after %s', (stage) => {
  test.each(Object.keys(TYPE) as Answer[])('the answer %s', (answer) => {
    const machine = new ClientHandshake(stage === 'list' ? { kind: 'list' } : CONNECT);
    const before = driveClient(machine, [GREETING, ...BEFORE[stage]]);
    expect(parseOptions(before.sent).at(-1)).toBe(stage);
    const { sent, last } = driveClient(machine, [reply(Option[stage], TYPE[answer], DATA[answer])]);
    const options = parseOptions(Buffer.concat([u32(0), sent]));
    expect(describeStep(options, last)).toBe(TABLE[stage][answer]);
  });
});

const FULL = Buffer.concat([
  GREETING,
  reply(Option.extendedHeaders, OptionReply.ack),
  reply(Option.setMetaContext, OptionReply.metaContext, ALLOCATION),
  reply(Option.setMetaContext, OptionReply.ack),
  reply(Option.go, OptionReply.info, hex('0001', toHex('the disk'))),
  reply(Option.go, OptionReply.info, hex('1234 00')),
  reply(Option.go, OptionReply.info, hex('0003 00000200 00001000 00100000')),
  reply(Option.go, OptionReply.info, INFO_EXPORT),
  reply(Option.go, OptionReply.ack),
  Buffer.from('a reply'),
]);

test('the name of an export is not repeated in failures: it may be a secret', () => {
  const NAME = 'disk@key';
  for (const type of [OptionReply.errUnknown, OptionReply.errPolicy]) {
    const machine = new ClientHandshake({ ...CONNECT, exportName: NAME });
    driveClient(machine, [GREETING, ...BEFORE.go]);
    const { last } = driveClient(machine, [reply(Option.go, type)]);
    expect(last.kind === 'failed' && last.error.message).not.toContain(NAME);
  }
});

describe('a whole handshake', () => {
  const whole = driveClient(new ClientHandshake(CONNECT), [FULL]);

  test('golden bytes of what the client sends', () => {
    const context = toHex('base:allocation');
    expect(whole.sent).toEqual(
      hex(
        '00000003',
        '49484156454f5054 0000000b 00000000',
        `49484156454f5054 0000000a 0000001f 00000004 ${toHex('disk')} 00000001 0000000f ${context}`,
        `49484156454f5054 00000007 00000010 00000004 ${toHex('disk')} 0003 0000 0001 0003`,
      ),
    );
  });

  test('golden bytes of EXPORT_NAME, LIST and STRUCTURED_REPLY', () => {
    const old = driveClient(new ClientHandshake({ ...CONNECT, useGo: false }), [
      GREETING,
      reply(Option.structuredReply, OptionReply.errUnsup),
    ]);
    expect(old.sent).toEqual(
      hex(
        '00000003 49484156454f5054 00000008 00000000',
        `49484156454f5054 00000001 00000004 ${toHex('disk')}`,
      ),
    );
    const list = driveClient(new ClientHandshake({ kind: 'list' }), [
      GREETING,
      reply(Option.list, OptionReply.ack),
    ]);
    expect(list.sent).toEqual(
      hex('00000003 49484156454f5054 00000003 00000000 49484156454f5054 00000002 00000000'),
    );
  });

  test('what was agreed on', () => {
    expect(whole.last).toEqual({
      kind: 'ready',
      rest: Buffer.from('a reply'),
      session: {
        exportName: 'the disk',
        requestedName: 'disk',
        headerStyle: 'extended',
        contexts: [{ id: 7, name: 'base:allocation' }],
        transmissionFlags: 0x8d,
        blockSizes: { minimum: 512, preferred: 4096, maximumPayload: 0x100000 },
        blockSizesPromised: true,
        sizeBytes: 0x1_2345_6000,
      },
    });
  });

  test('every split of the wire gives the same, through one reused buffer', () => {
    for (const chunks of everyCut(FULL)) {
      expect(driveClient(new ClientHandshake(CONNECT), throughOneBuffer(chunks))).toEqual(whole);
    }
    fc.assert(
      fc.property(fc.array(fc.nat(FULL.length), { maxLength: 40 }), (places) => {
        const transcript = driveClient(new ClientHandshake(CONNECT), throughOneBuffer(cut(FULL, places)));
        expect(transcript).toEqual(whole);
      }),
      { seed: testRandom('client handshake splits').seed, numRuns: 200 },
    );
  });
});

describe('servers of other ages', () => {
  const greeting = (flags: number) => Buffer.concat([GREETING.subarray(0, 16), u32(flags).subarray(2)]);
  const answer = hex('0000000000100000 0081');

  test.each([
    [0, 124],
    [2, 0],
  ])('newstyle only, handshake flags %i: EXPORT_NAME at once, %i zeroes', (flags, zeroes) => {
    const wire = [greeting(flags), Buffer.concat([answer, Buffer.alloc(zeroes), Buffer.from('rest')])];
    const { sent, last } = driveClient(new ClientHandshake(CONNECT), wire);
    expect(sent.subarray(0, 4)).toEqual(u32(flags));
    expect(parseOptions(sent)).toEqual(['exportName']);
    expect(last).toMatchObject({
      kind: 'ready',
      session: { headerStyle: 'simple', sizeBytes: 0x100000, contexts: [] },
    });
    // sendDf means nothing without structured replies.
    expect(last.kind === 'ready' && last.session.transmissionFlags).toBe(TransmissionFlag.hasFlags);
    expect(last.kind === 'ready' && last.rest.toString()).toBe('rest');
  });

  test('unknown handshake flags are passed over', () => {
    const { sent } = driveClient(new ClientHandshake(CONNECT), [greeting(0x8003)]);
    expect(sent.subarray(0, 4)).toEqual(FIXED_NEWSTYLE);
  });

  test('newstyle only cannot list; oldstyle is not spoken; anything else is no NBD', () => {
    const list = driveClient(new ClientHandshake({ kind: 'list' }), [greeting(0)]).last;
    expect(list).toMatchObject({ kind: 'failed', error: { code: 'unsupported' } });
    const oldstyle = Buffer.concat([GREETING.subarray(0, 8), hex('0000420281861253'), Buffer.alloc(136)]);
    const old = driveClient(new ClientHandshake(CONNECT), [oldstyle]).last;
    expect(old).toMatchObject({ kind: 'failed', error: { code: 'unsupported' } });
    const http = driveClient(new ClientHandshake(CONNECT), [
      Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'),
    ]).last;
    expect(http).toMatchObject({ kind: 'failed', error: { code: 'bad-magic' } });
  });

  test('the connection ends: after EXPORT_NAME that means the export is not there', () => {
    const old = new ClientHandshake({ ...CONNECT, useGo: false, headerStyle: 'simple' });
    driveClient(old, [GREETING]);
    old.end();
    expect(old.next()).toMatchObject({ kind: 'failed', error: { code: 'unknown-export' } });
    const early = new ClientHandshake(CONNECT);
    early.end();
    expect(early.next()).toMatchObject({ kind: 'failed', error: { code: 'closed' } });
  });
});

describe('breaches', () => {
  const ACKED = [GREETING, reply(Option.extendedHeaders, OptionReply.ack)];
  const CONTEXTS = [...ACKED, reply(Option.setMetaContext, OptionReply.ack)];
  const info = (...digits: string[]) => [...CONTEXTS, reply(Option.go, OptionReply.info, hex(...digits))];
  const context = (id: number, name: string) =>
    reply(Option.setMetaContext, OptionReply.metaContext, Buffer.concat([u32(id), Buffer.from(name)]));
  const huge = reply(Option.extendedHeaders, OptionReply.errUnsup);
  huge.writeUInt32BE(Limit.optionBytes + 1, 16);

  test.each<[string, string, Buffer[]]>([
    ['a wrong reply magic', 'bad-magic', [GREETING, Buffer.alloc(20)]],
    ['a reply to another option', 'bad-message', [GREETING, reply(Option.go, OptionReply.ack)]],
    [
      'ACK with data',
      'bad-message',
      [GREETING, reply(Option.extendedHeaders, OptionReply.ack, Buffer.alloc(1))],
    ],
    ['a reply longer than any', 'too-big', [GREETING, huge]],
    ['a context that was not asked for', 'bad-message', [...ACKED, context(1, 'x:y')]],
    [
      'a context twice',
      'bad-message',
      [...ACKED, context(1, 'base:allocation'), context(2, 'base:allocation')],
    ],
    ['a context name that is not UTF-8', 'bad-message', [...ACKED, reply(10, 4, hex('00000001 ff'))]],
    ['a context without an id', 'bad-message', [...ACKED, reply(10, 4, hex('000001'))]],
    ['NBD_INFO_EXPORT too short', 'bad-message', info('0000 0000000123456000 00')],
    ['NBD_INFO_EXPORT too long', 'bad-message', info('0000 0000000123456000 0001 00')],
    ['a size over 2^53 - 1', 'unsupported', info('0000 0020000000000000 0001')],
    ['no NBD_FLAG_HAS_FLAGS', 'bad-message', [...info('0000 0000000123456000 0002'), reply(7, 1)]],
    ['a minimum that is no power of 2', 'bad-message', info('0003 00000003 00001000 00100000')],
    ['a minimum over 65,536', 'bad-message', info('0003 00020000 00020000 00100000')],
    ['a preferred size below 512', 'bad-message', info('0003 00000001 00000100 00100000')],
    ['a preferred size below the minimum', 'bad-message', info('0003 00001000 00000200 00100000')],
    ['a maximum below the preferred size', 'bad-message', info('0003 00000001 00001000 00000800')],
    [
      'ERR_UNSUP to GO after extended headers',
      'refused',
      [...CONTEXTS, reply(Option.go, OptionReply.errUnsup)],
    ],
  ])('%s: failed, %s', (_what, code, wire) => {
    const { last } = driveClient(new ClientHandshake(CONNECT), wire);
    expect(last).toMatchObject({ kind: 'failed', error: { code } });
  });

  test('a list without end is cut off at the bound', () => {
    const machine = new ClientHandshake({ kind: 'list' });
    driveClient(machine, [GREETING]);
    const entry = reply(Option.list, OptionReply.server, Buffer.concat([u32(4000), Buffer.alloc(4000, 'n')]));
    let fed = 0;
    let step = machine.next();
    for (; step.kind === 'need-bytes' && fed <= Limit.optionRepliesBytes; fed += entry.length) {
      step = driveClient(machine, [entry]).last;
    }
    expect(step).toMatchObject({ kind: 'failed', error: { code: 'too-big' } });
  });

  test('each option has the whole bound for its replies', () => {
    const text = Buffer.alloc(60_000, 'n');
    const info = reply(Option.go, OptionReply.info, Buffer.concat([hex('1234'), text]));
    const many = Array.from({ length: Math.floor(Limit.optionRepliesBytes / info.length) - 1 }, () => info);
    const { last } = driveClient(new ClientHandshake({ ...CONNECT, metaContexts: [] }), [
      GREETING,
      reply(Option.extendedHeaders, OptionReply.errUnsup, text),
      reply(Option.structuredReply, OptionReply.errUnsup, text),
      ...many,
      reply(Option.go, OptionReply.info, INFO_EXPORT),
      reply(Option.go, OptionReply.ack),
    ]);
    expect(last.kind).toBe('ready');
  });
});
