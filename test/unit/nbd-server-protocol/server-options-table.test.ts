/**
 * What the server says to each option in each state of the negotiation. The tables are Records, so that an option
 * or a state that is added without a cell does not compile.
 */

import { describe, expect, test } from 'vitest';
import { type HeaderStyle, Limit, Option } from '../../../src/nbd-server-protocol/constants.ts';
import { ServerHandshake } from '../../../src/nbd-server-protocol/server-handshake.ts';
import { driveServer, infoData, metaData, option, parseReplies, u32 } from './lab.ts';

type OptionName = keyof typeof Option | 'unknown';
type Negotiated = HeaderStyle | 'not fixed newstyle' | 'shutting down';
/** Types of the replies in order, then the last step if the machine is over. */
type Expected = readonly string[];

const NUMBER: Record<OptionName, number> = { ...Option, unknown: 99 };
const WELL_FORMED: Record<OptionName, Buffer> = {
  exportName: Buffer.from('disk'),
  abort: Buffer.alloc(0),
  list: Buffer.alloc(0),
  peekExport: Buffer.from('disk'),
  starttls: Buffer.alloc(0),
  info: infoData('disk'),
  go: infoData('disk'),
  structuredReply: Buffer.alloc(0),
  listMetaContext: metaData('disk', ['base:']),
  setMetaContext: metaData('disk', ['base:allocation']),
  extendedHeaders: Buffer.alloc(0),
  unknown: Buffer.from('whatever'),
};

const VIOLATION = ['close violation'] as const;
const SHUTDOWN = ['errShutdown'] as const;
const UNSUP = ['errUnsup'] as const;
const INVALID = ['errInvalid'] as const;
const TABLE: Record<OptionName, Record<Negotiated, Expected>> = {
  exportName: {
    simple: ['ready'],
    structured: ['ready'],
    extended: VIOLATION,
    'not fixed newstyle': ['ready'],
    'shutting down': ['close refused'],
  },
  abort: {
    simple: ['ack', 'close aborted'],
    structured: ['ack', 'close aborted'],
    extended: ['ack', 'close aborted'],
    'not fixed newstyle': VIOLATION,
    'shutting down': ['ack', 'close aborted'],
  },
  list: {
    simple: ['server', 'server', 'ack'],
    structured: ['server', 'server', 'ack'],
    extended: ['server', 'server', 'ack'],
    'not fixed newstyle': VIOLATION,
    'shutting down': SHUTDOWN,
  },
  peekExport: {
    simple: UNSUP,
    structured: UNSUP,
    extended: UNSUP,
    'not fixed newstyle': VIOLATION,
    'shutting down': SHUTDOWN,
  },
  starttls: {
    simple: ['errPolicy'],
    structured: ['errPolicy'],
    extended: ['errPolicy'],
    'not fixed newstyle': VIOLATION,
    'shutting down': SHUTDOWN,
  },
  info: {
    simple: ['info', 'ack'],
    structured: ['info', 'ack'],
    extended: ['info', 'ack'],
    'not fixed newstyle': VIOLATION,
    'shutting down': SHUTDOWN,
  },
  go: {
    simple: ['info', 'ack', 'ready'],
    structured: ['info', 'ack', 'ready'],
    extended: ['info', 'ack', 'ready'],
    'not fixed newstyle': VIOLATION,
    'shutting down': SHUTDOWN,
  },
  structuredReply: {
    simple: ['ack'],
    structured: INVALID,
    extended: ['errExtHeaderReqd'],
    'not fixed newstyle': VIOLATION,
    'shutting down': SHUTDOWN,
  },
  listMetaContext: {
    simple: INVALID,
    structured: ['metaContext', 'ack'],
    extended: ['metaContext', 'ack'],
    'not fixed newstyle': VIOLATION,
    'shutting down': SHUTDOWN,
  },
  setMetaContext: {
    simple: INVALID,
    structured: ['metaContext', 'ack'],
    extended: ['metaContext', 'ack'],
    'not fixed newstyle': VIOLATION,
    'shutting down': SHUTDOWN,
  },
  extendedHeaders: {
    simple: ['ack'],
    structured: ['ack'],
    extended: INVALID,
    'not fixed newstyle': VIOLATION,
    'shutting down': SHUTDOWN,
  },
  unknown: {
    simple: UNSUP,
    structured: UNSUP,
    extended: UNSUP,
    'not fixed newstyle': VIOLATION,
    'shutting down': SHUTDOWN,
  },
};

/** A server that has negotiated as far as the state says. */
function serverIn(state: Negotiated): ServerHandshake {
  const machine = new ServerHandshake();
  const chunks = [u32(state === 'not fixed newstyle' ? 0 : 3)];
  if (state === 'structured') chunks.push(option(Option.structuredReply));
  if (state === 'extended') chunks.push(option(Option.extendedHeaders));
  expect(driveServer(machine, chunks).last.kind).toBe('need-bytes');
  if (state === 'shutting down') machine.refuse('shutdown');
  return machine;
}

/** Types of replies and the end; EXPORT_NAME is answered without an option reply. */
function outcome(machine: ServerHandshake, name: OptionName, data: Buffer, claimed = data.length): string[] {
  const { sent, last } = driveServer(machine, [option(NUMBER[name], data, claimed)]);
  const replies = name === 'exportName' ? [] : parseReplies(sent);
  for (const one of replies) {
    expect(one.option).toBe(name === 'unknown' ? 'unknown' : name);
    if (one.type.startsWith('err')) expect(one.data.toString('utf8')).toMatch(/[a-z]{3}/);
  }
  const types = replies.map(({ type }) => type);
  if (last.kind === 'close') types.push(`close ${last.code}`);
  else if (last.kind !== 'need-bytes') types.push(last.kind);
  return types;
}

const NAMES = Object.keys(TABLE) as OptionName[];
const STATES: readonly Negotiated[] = [
  'simple',
  'structured',
  'extended',
  'not fixed newstyle',
  'shutting down',
];

describe.each(NAMES)('N1: option %s', (name) => {
  test.each(STATES)('when %s', (state) => {
    expect(outcome(serverIn(state), name, WELL_FORMED[name])).toEqual(TABLE[name][state]);
  });
});

interface Malformed {
  /** Three bytes 'abc' as its data. */
  readonly abc: Expected;
  /** More data than a server may be made to keep. */
  readonly huge: Expected;
}

const MALFORMED: Record<OptionName, Malformed> = {
  exportName: { abc: ['close refused'], huge: VIOLATION },
  abort: { abc: ['ack', 'close aborted'], huge: ['ack', 'close aborted'] },
  list: { abc: INVALID, huge: INVALID },
  peekExport: { abc: UNSUP, huge: UNSUP },
  starttls: { abc: INVALID, huge: INVALID },
  info: { abc: INVALID, huge: ['errTooBig'] },
  go: { abc: INVALID, huge: ['errTooBig'] },
  structuredReply: { abc: INVALID, huge: INVALID },
  listMetaContext: { abc: INVALID, huge: ['errTooBig'] },
  setMetaContext: { abc: INVALID, huge: ['errTooBig'] },
  extendedHeaders: { abc: INVALID, huge: INVALID },
  unknown: { abc: UNSUP, huge: UNSUP },
};

describe.each(NAMES)('N2: option %s with data that is wrong', (name) => {
  test('three bytes', () => {
    expect(outcome(serverIn('structured'), name, Buffer.from('abc'))).toEqual(MALFORMED[name].abc);
  });

  test('more than may be kept, and the connection stays in step', () => {
    const machine = serverIn('structured');
    const length = 100 * Limit.optionBytes;
    const types: string[] = [];
    let fed = driveServer(machine, [option(NUMBER[name], Buffer.alloc(0), length)]);
    for (let left = length; left > 0 && fed.last.kind === 'need-bytes'; left -= Limit.optionBytes) {
      expect(fed.sent.length).toBe(0);
      fed = driveServer(machine, [Buffer.alloc(Limit.optionBytes)]);
      expect(machine.bufferedBytes).toBe(0);
    }
    types.push(...parseReplies(fed.sent).map(({ type }) => type));
    if (fed.last.kind === 'close') types.push(`close ${fed.last.code}`);
    expect(types).toEqual(MALFORMED[name].huge);
    if (fed.last.kind === 'need-bytes') {
      expect(outcome(machine, 'list', Buffer.alloc(0))).toEqual(['server', 'server', 'ack']);
    }
  });
});
