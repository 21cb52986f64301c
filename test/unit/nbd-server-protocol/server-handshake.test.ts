/** The server's handshake: golden bytes, every split of the wire, and the rules that a table cannot show. */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Info, Limit, Option, TransmissionFlag } from '../../../src/nbd-server-protocol/constants.ts';
import { ServerHandshake } from '../../../src/nbd-server-protocol/server-handshake.ts';
import type { NegotiatedSession } from '../../../src/nbd-server-protocol/session.ts';
import { testRandom } from '../../support/random.ts';
import {
  cut,
  DISK,
  driveServer,
  everyCut,
  FIXED_NEWSTYLE,
  GREETING,
  hex,
  infoData,
  metaData,
  option,
  parseReplies,
  type ServerTranscript,
  throughOneBuffer,
  toHex,
  u32,
} from './lab.ts';

function talk(...wire: Buffer[]): ServerTranscript {
  return driveServer(new ServerHandshake(), wire);
}

function sessionOf({ last }: ServerTranscript): NegotiatedSession {
  if (last.kind !== 'ready') throw new Error(`no session but ${JSON.stringify(last)}`);
  return last.session;
}

const STRUCTURED = option(Option.structuredReply);
const EXTENDED = option(Option.extendedHeaders);

describe('golden bytes', () => {
  test('greeting', () => {
    expect(new ServerHandshake().greeting()).toEqual(GREETING);
  });

  test('EXPORT_NAME, with and without the 124 zeroes', () => {
    const body = '0000000123456000 000d';
    const request = hex('49484156454f5054 00000001 00000004', toHex('disk'));
    expect(talk(u32(3), request).sent).toEqual(hex(body));
    expect(talk(u32(1), request).sent).toEqual(Buffer.concat([hex(body), Buffer.alloc(124)]));
  });

  test('LIST: names with descriptions, then ACK', () => {
    const { sent } = talk(FIXED_NEWSTYLE, hex('49484156454f5054 00000003 00000000'));
    expect(sent).toEqual(
      hex(
        `0003e889045565a9 00000003 00000002 0000000e 00000004 ${toHex('disk')} ${toHex('a disk')}`,
        `0003e889045565a9 00000003 00000002 00000009 00000005 ${toHex('other')}`,
        '0003e889045565a9 00000003 00000001 00000000',
      ),
    );
  });

  test('GO with every information type', () => {
    const infos = '0005 0003 0002 0001 0000 1234';
    const request = hex(`49484156454f5054 00000007 00000014 00000004 ${toHex('disk')}`, infos);
    const { sent, last } = talk(FIXED_NEWSTYLE, request);
    expect(sent).toEqual(
      hex(
        '0003e889045565a9 00000007 00000003 0000000c 0000 0000000123456000 000d',
        `0003e889045565a9 00000007 00000003 00000006 0001 ${toHex('disk')}`,
        `0003e889045565a9 00000007 00000003 00000008 0002 ${toHex('a disk')}`,
        '0003e889045565a9 00000007 00000003 0000000e 0003 00000001 00001000 02000000',
        '0003e889045565a9 00000007 00000001 00000000',
      ),
    );
    expect(last.kind).toBe('ready');
  });

  test('SET_META_CONTEXT gives ids from 1, LIST_META_CONTEXT 0', () => {
    const name = toHex('base:allocation');
    const data = `00000004 ${toHex('disk')} 00000001 0000000f ${name}`;
    const set = talk(FIXED_NEWSTYLE, STRUCTURED, hex('49484156454f5054 0000000a 0000001f', data));
    const list = talk(FIXED_NEWSTYLE, STRUCTURED, hex('49484156454f5054 00000009 0000001f', data));
    const ack = '0003e889045565a9 00000008 00000001 00000000';
    expect(set.sent).toEqual(
      hex(
        ack,
        `0003e889045565a9 0000000a 00000004 00000013 00000001 ${name}`,
        '0003e889045565a9 0000000a 00000001 00000000',
      ),
    );
    expect(list.sent).toEqual(
      hex(
        ack,
        `0003e889045565a9 00000009 00000004 00000013 00000000 ${name}`,
        '0003e889045565a9 00000009 00000001 00000000',
      ),
    );
  });
});

describe('an export that is refused with a reason', () => {
  /** Answers the first question with the refusal, all others from EXPORTS. */
  function refusing(code: 'unknown' | 'policy' | 'shutdown', text: string, ...wire: Buffer[]) {
    const machine = new ServerHandshake();
    machine.feed(Buffer.concat(wire));
    const sent: Buffer[] = [];
    let step = machine.next();
    for (; step.kind === 'send'; step = machine.next()) sent.push(step.bytes);
    expect(step.kind).toBe('find');
    machine.refuseExport({ code, text });
    const { sent: rest, last } = driveServer(machine, [Buffer.alloc(0)]);
    return { sent: Buffer.concat([...sent, rest]), last };
  }

  test.each([
    ['unknown', '80000006'],
    ['policy', '80000002'],
    ['shutdown', '80000007'],
  ] as const)('golden bytes: %s, to INFO, GO and both meta context options', (code, type) => {
    const text = `00000005 ${toHex('a b c')}`;
    for (const number of [Option.info, Option.go]) {
      const { sent, last } = refusing(code, 'a b c', FIXED_NEWSTYLE, option(number, infoData('disk')));
      expect(sent).toEqual(hex(`0003e889045565a9 0000000${number} ${type}`, text));
      expect(last).toEqual({ kind: 'need-bytes' });
    }
    for (const number of [Option.listMetaContext, Option.setMetaContext]) {
      const asking = option(number, metaData('disk', ['base:allocation']));
      const { sent } = refusing(code, 'a b c', FIXED_NEWSTYLE, STRUCTURED, asking);
      expect(sent.subarray(20)).toEqual(hex(`0003e889045565a9 0000000${number.toString(16)} ${type}`, text));
    }
  });

  test('the session goes on: another export, or the same one later', () => {
    const asked = option(Option.go, infoData('disk'));
    const { sent, last } = refusing('policy', 'not now', FIXED_NEWSTYLE, asked, asked);
    expect(parseReplies(sent).map(({ type }) => type)).toEqual(['errPolicy', 'info', 'ack']);
    expect(last.kind).toBe('ready');
  });

  test('a refused SET_META_CONTEXT leaves no contexts', () => {
    const contexts = option(Option.setMetaContext, metaData('disk', ['base:allocation']));
    const asked = option(Option.go, infoData('disk'));
    const { last } = refusing('policy', 'not now', FIXED_NEWSTYLE, STRUCTURED, contexts, asked);
    expect(last).toMatchObject({ kind: 'ready', session: { contexts: [] } });
  });

  test('EXPORT_NAME has no word for it: the connection is closed', () => {
    const { sent, last } = refusing(
      'shutdown',
      'gone',
      u32(1),
      option(Option.exportName, Buffer.from('disk')),
    );
    expect(sent).toHaveLength(0);
    expect(last).toEqual({ kind: 'close', code: 'refused', reason: 'gone' });
  });

  test('a text that cannot be sent as it is, is cut and mended', () => {
    const { sent } = refusing('policy', `\0${'é'.repeat(5000)}`, u32(1), option(Option.go, infoData('disk')));
    const [reply] = parseReplies(sent);
    expect(reply?.data.length).toBeLessThanOrEqual(Limit.stringBytes);
    expect(reply?.data.toString().startsWith('\ufffdé')).toBe(true);
  });
});

const EVERYTHING = Buffer.concat([
  FIXED_NEWSTYLE,
  option(Option.starttls),
  option(77, Buffer.from('unknown data')),
  option(Option.list, Buffer.from('x')),
  option(Option.list),
  option(Option.info, infoData('missing')),
  STRUCTURED,
  EXTENDED,
  option(Option.listMetaContext, metaData('', [])),
  option(Option.setMetaContext, metaData('disk', ['base:allocation'])),
  option(Option.info, infoData('disk', [Info.name])),
  option(Option.go, infoData('disk', [Info.blockSize])),
  Buffer.from('first request'),
]);

describe('every split of the wire gives the same answers', () => {
  const whole = driveServer(new ServerHandshake(), [EVERYTHING]);

  test('cut at every place, and byte by byte, through one reused buffer', () => {
    expect(sessionOf(whole).headerStyle).toBe('extended');
    for (const chunks of everyCut(EVERYTHING)) {
      expect(driveServer(new ServerHandshake(), throughOneBuffer(chunks))).toEqual(whole);
    }
  });

  test('cut at random places', () => {
    const places = fc.array(fc.nat(EVERYTHING.length), { maxLength: 40 });
    fc.assert(
      fc.property(places, (at) => {
        const transcript = driveServer(new ServerHandshake(), throughOneBuffer(cut(EVERYTHING, at)));
        expect(transcript).toEqual(whole);
      }),
      { seed: testRandom('server handshake splits').seed, numRuns: 300 },
    );
  });

  test('what came behind the handshake is handed over', () => {
    expect(whole.last.kind === 'ready' && whole.last.rest.toString()).toBe('first request');
  });
});

describe('what is negotiated', () => {
  const go = option(Option.go, infoData('disk'));
  const set = (name: string, ...queries: string[]) => option(Option.setMetaContext, metaData(name, queries));
  const { sendDf, blockStatusPayload } = TransmissionFlag;

  test('sendDf and blockStatusPayload are there exactly when they hold', () => {
    const flags = (...wire: Buffer[]) =>
      sessionOf(talk(FIXED_NEWSTYLE, ...wire, go)).transmissionFlags & (sendDf | blockStatusPayload);
    expect(flags()).toBe(0);
    expect(flags(STRUCTURED)).toBe(sendDf);
    expect(flags(STRUCTURED, set('disk', 'base:allocation'))).toBe(sendDf);
    expect(flags(EXTENDED)).toBe(sendDf);
    expect(flags(EXTENDED, set('disk', 'base:allocation'))).toBe(sendDf | blockStatusPayload);
    expect(flags(EXTENDED, set('other', 'base:allocation'))).toBe(sendDf);
  });

  const contexts = (...wire: Buffer[]) =>
    sessionOf(talk(FIXED_NEWSTYLE, STRUCTURED, ...wire, go)).contexts.map(({ name }) => name);

  test('contexts hold for the export they were selected for, by any of its names', () => {
    expect(contexts(set('disk', 'base:allocation'))).toEqual(['base:allocation']);
    expect(contexts(set('', 'base:allocation'))).toEqual(['base:allocation']);
    expect(contexts(set('other', 'base:allocation'))).toEqual([]);
  });

  test('the last SET_META_CONTEXT counts, and leaves nothing when it fails', () => {
    const good = set('disk', 'base:allocation');
    expect(contexts(good, set('disk', 'x-volary:one', 'x-volary:two'))).toEqual([
      'x-volary:one',
      'x-volary:two',
    ]);
    expect(contexts(good, set('disk'))).toEqual([]);
    expect(contexts(good, set('disk', 'no colon'))).toEqual([]);
    expect(contexts(good, set('missing', 'base:allocation'))).toEqual([]);
    const huge = option(Option.setMetaContext, Buffer.alloc(Limit.optionBytes + 1));
    expect(contexts(good, huge)).toEqual([]);
    expect(contexts(good, option(Option.listMetaContext, metaData('disk', ['no colon'])))).toEqual([
      'base:allocation',
    ]);
  });

  test('contexts survive a change from structured replies to extended headers', () => {
    expect(contexts(set('disk', 'base:allocation'), EXTENDED)).toEqual(['base:allocation']);
  });

  test('EXPORT_NAME takes structured replies and contexts along', () => {
    const wire = [
      FIXED_NEWSTYLE,
      STRUCTURED,
      set('disk', 'base:allocation'),
      option(Option.exportName, Buffer.from('disk')),
    ];
    const session = sessionOf(talk(...wire));
    expect(session).toMatchObject({
      headerStyle: 'structured',
      contexts: [{ id: 1, name: 'base:allocation' }],
    });
    expect(session.blockSizesPromised).toBe(false);
  });

  test('block sizes are promised by GO alone, and only when asked for', () => {
    const info = option(Option.info, infoData('disk', [Info.blockSize]));
    expect(sessionOf(talk(FIXED_NEWSTYLE, info, go)).blockSizesPromised).toBe(false);
    const asking = option(Option.go, infoData('disk', [Info.blockSize]));
    expect(sessionOf(talk(FIXED_NEWSTYLE, asking)).blockSizesPromised).toBe(true);
  });

  test('the default export goes by its own name', () => {
    const session = sessionOf(talk(FIXED_NEWSTYLE, option(Option.go, infoData(''))));
    expect(session).toMatchObject({ exportName: 'disk', requestedName: '' });
  });

  test('INFO and a GO after it say the same, context flags included', () => {
    const request = infoData('disk', [Info.name, Info.blockSize]);
    const { sent } = talk(
      FIXED_NEWSTYLE,
      EXTENDED,
      set('disk', 'base:allocation'),
      option(Option.info, request),
      option(Option.go, request),
    );
    const replies = parseReplies(sent);
    const of = (name: string) =>
      replies.filter((one) => one.option === name).map(({ type, data }) => ({ type, data }));
    expect(of('info')).toEqual(of('go'));
  });
});

describe('metadata queries', () => {
  const names = (number: number, ...queries: string[]) => {
    const { sent } = talk(FIXED_NEWSTYLE, EXTENDED, option(number, metaData('disk', queries)));
    return parseReplies(sent)
      .slice(1)
      .map(({ type, data }) => (type === 'metaContext' ? data.toString('utf8', 4) : type));
  };
  const list = (...queries: string[]) => names(Option.listMetaContext, ...queries);
  const select = (...queries: string[]) => names(Option.setMetaContext, ...queries);

  test('no query lists all and selects none', () => {
    expect(list()).toEqual([...DISK.metaContexts, 'ack']);
    expect(select()).toEqual(['ack']);
  });

  test('a namespace alone is a wildcard in a list and selects nothing', () => {
    expect(list('base:')).toEqual(['base:allocation', 'ack']);
    expect(list('x-volary:')).toEqual(['x-volary:one', 'x-volary:two', 'ack']);
    expect(select('base:', 'x-volary:')).toEqual(['ack']);
  });

  test('unknown namespaces and leaf names are passed over', () => {
    expect(list('qemu:', 'base:other', 'x-volary:two')).toEqual(['x-volary:two', 'ack']);
    expect(select('qemu:dirty-bitmap:x', 'base:other', 'base:allocation')).toEqual([
      'base:allocation',
      'ack',
    ]);
  });

  test('a context that is asked for twice comes once', () => {
    expect(select('base:allocation', 'base:allocation')).toEqual(['base:allocation', 'ack']);
  });

  test.each(['base', '', ':allocation'])('a query %j without namespace and colon is invalid', (query) => {
    expect(select(query)).toEqual(['errInvalid']);
    expect(list(query)).toEqual(['errInvalid']);
  });

  test('more contexts than may be selected: TOO_BIG', () => {
    const many = Array.from({ length: Limit.metaContexts + 1 }, (_, i) => `x-many:${i}`);
    const machine = new ServerHandshake();
    machine.feed(
      Buffer.concat([FIXED_NEWSTYLE, EXTENDED, option(Option.setMetaContext, metaData('disk', many))]),
    );
    expect(machine.next().kind).toBe('send');
    expect(machine.next()).toEqual({ kind: 'find', name: 'disk' });
    machine.provideExport({ ...DISK, metaContexts: many });
    const step = machine.next();
    expect(step.kind === 'send' && parseReplies(step.bytes)[0]?.type).toBe('errTooBig');
  });
});

describe('N2: option data that breaks a rule', () => {
  const nameOf = (bytes: Buffer) => Buffer.concat([u32(bytes.length), bytes, hex('0000')]);
  const longest = 'n'.repeat(Limit.stringBytes);
  test.each([
    ['a name longer than the data', Option.go, Buffer.concat([u32(100), Buffer.from('disk'), hex('0000')])],
    ['a name that is not UTF-8', Option.go, nameOf(hex('c328'))],
    ['a name with a NUL', Option.info, nameOf(Buffer.from('di\0sk'))],
    ['a name of 4,097 bytes', Option.info, nameOf(Buffer.from(`${longest}n`))],
    ['fewer information requests than counted', Option.go, hex('00000000 0002 0003')],
    ['bytes behind the information requests', Option.go, hex('00000000 0000 00')],
    ['an information type twice', Option.go, infoData('disk', [Info.blockSize, Info.name, Info.blockSize])],
    ['more queries than there is room for', Option.setMetaContext, hex('00000000 ffffffff')],
    ['a query longer than the data', Option.setMetaContext, hex('00000000 00000001 00000005 61')],
    ['bytes behind the queries', Option.listMetaContext, hex('00000000 00000000 00')],
    ['a query with a NUL', Option.listMetaContext, metaData('', ['base:\0'])],
    ['a query of 4,097 bytes', Option.setMetaContext, metaData('', [`x:${longest}`])],
  ])('%s: ERR_INVALID, and the next option is answered', (_what, number, data) => {
    const { sent, asked } = talk(FIXED_NEWSTYLE, STRUCTURED, option(number, data), option(Option.list));
    expect(parseReplies(sent).map(({ type }) => type)).toEqual([
      'ack',
      'errInvalid',
      'server',
      'server',
      'ack',
    ]);
    expect(asked).toEqual(['list']);
  });

  test('unknown information types are passed over, even twice', () => {
    const { sent } = talk(FIXED_NEWSTYLE, option(Option.info, infoData('disk', [99, 99])));
    expect(parseReplies(sent).map(({ type }) => type)).toEqual(['info', 'ack']);
  });

  test('the longest name that is allowed is looked for', () => {
    const { sent, asked } = talk(FIXED_NEWSTYLE, option(Option.info, infoData(longest)));
    expect(asked).toEqual([`find ${longest}`]);
    expect(parseReplies(sent)[0]?.type).toBe('errUnknown');
    expect(parseReplies(sent)[0]?.data.length).toBeLessThan(200);
  });

  test.each([
    ['unknown client flags', [u32(4)]],
    ['a wrong option magic', [FIXED_NEWSTYLE, Buffer.alloc(16)]],
    ['EXPORT_NAME that is not UTF-8', [FIXED_NEWSTYLE, option(Option.exportName, hex('ff'))]],
    ['EXPORT_NAME of 4,097 bytes', [FIXED_NEWSTYLE, option(Option.exportName, Buffer.alloc(0), 4097)]],
  ])('%s: the connection is closed', (_what, wire) => {
    const { sent, last } = talk(...wire);
    expect(sent.length).toBe(0);
    expect(last).toMatchObject({ kind: 'close', code: 'violation' });
  });
});
