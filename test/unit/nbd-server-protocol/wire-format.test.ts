/**
 * One hash over everything that both sides put on the wire: an accidental change of the format fails here, whatever
 * the other tests say. A change on purpose changes the hash in the same commit, and says why.
 */

import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { ClientHandshake } from '../../../src/nbd-server-protocol/client-handshake.ts';
import * as constants from '../../../src/nbd-server-protocol/constants.ts';
import { ReplyEncoder } from '../../../src/nbd-server-protocol/reply-encoder.ts';
import { RequestEncoder } from '../../../src/nbd-server-protocol/request-encoder.ts';
import { ServerHandshake } from '../../../src/nbd-server-protocol/server-handshake.ts';
import {
  driveClient,
  driveServer,
  FIXED_NEWSTYLE,
  GREETING,
  infoData,
  metaData,
  option,
  reply,
} from './lab.ts';

const { Command, Errno, Option, OptionReply } = constants;
const STYLES = ['simple', 'structured', 'extended'] as const;

function* serverHandshakes(): Generator<Buffer> {
  yield new ServerHandshake().greeting();
  const meta = metaData('disk', ['base:allocation']);
  const options = [
    option(Option.structuredReply),
    option(Option.extendedHeaders),
    option(Option.list),
    option(Option.listMetaContext, metaData('disk')),
    option(Option.setMetaContext, meta),
    option(Option.info, infoData('disk', [0, 1, 2, 3])),
  ];
  const go = option(Option.go, infoData('disk', [3]));
  yield driveServer(new ServerHandshake(), [FIXED_NEWSTYLE, ...options, go]).sent;
  for (const flags of [1, 3]) {
    const client = Buffer.of(0, 0, 0, flags);
    yield driveServer(new ServerHandshake(), [client, option(Option.exportName)]).sent;
  }
}

function* clientHandshakes(): Generator<Buffer> {
  yield driveClient(new ClientHandshake({ kind: 'list' }), [GREETING, reply(Option.list, OptionReply.ack)])
    .sent;
  for (const headerStyle of STYLES) {
    const metaContexts = ['base:allocation'];
    const goal = {
      kind: 'connect',
      exportName: 'disk',
      headerStyle,
      metaContexts,
      requestBlockSizes: true,
    } as const;
    const unsupported = [Option.extendedHeaders, Option.structuredReply, Option.go].map((one) =>
      reply(one, OptionReply.errUnsup),
    );
    const replies = unsupported.slice(2 - STYLES.indexOf(headerStyle));
    yield driveClient(new ClientHandshake({ ...goal, useGo: true }), [GREETING, ...replies]).sent;
    yield driveClient(new ClientHandshake({ ...goal, useGo: false }), [GREETING]).sent;
  }
}

function* transmissions(): Generator<Buffer> {
  const tag = { cookieHigh: 1, cookieLow: 2, offsetHigh: 3, offsetLow: 4 };
  for (const style of STYLES) {
    const buffer = Buffer.alloc(256);
    const requests = new RequestEncoder(style);
    for (const command of Object.values(Command)) {
      const header = { command, flags: 1, cookie: 2 ** 32 + 2, offset: 2 ** 33 + 4, length: 512 };
      yield Buffer.from(buffer.subarray(0, requests.header(buffer, 0, header)));
    }
    const replies = new ReplyEncoder(style);
    yield Buffer.from(buffer.subarray(0, replies.ack(buffer, 0, tag)));
    yield Buffer.from(buffer.subarray(0, replies.dataHeader(buffer, 0, tag, 2 ** 33, 512, false)));
    yield Buffer.from(buffer.subarray(0, replies.error(buffer, 0, tag, Errno.EIO, 'broken')));
    yield Buffer.from(buffer.subarray(0, replies.error(buffer, 0, tag, Errno.EIO, 'broken', 2 ** 33)));
    if (style === 'simple') continue;
    yield Buffer.from(buffer.subarray(0, replies.hole(buffer, 0, tag, 2 ** 33, 512, true)));
    const extents = [{ length: 512, state: 3 }];
    yield Buffer.from(buffer.subarray(0, replies.blockStatus(buffer, 0, tag, 1, extents, true)));
  }
}

test('the wire format has not changed', () => {
  const hash = createHash('sha256');
  for (const part of [serverHandshakes(), clientHandshakes(), transmissions()]) {
    for (const bytes of part) hash.update(`${bytes.length}:`).update(bytes);
  }
  expect(hash.digest('hex')).toBe('5eb17e259088b278d70f5e9d05faef6712428b4487b60dc0e53466d851057040');
});

test('the numbers of the protocol have not changed', () => {
  const numbers = Object.entries(constants).filter(
    ([name, value]) => typeof value !== 'function' && name !== 'Limit',
  );
  const text = JSON.stringify(numbers, (_key, value) => (typeof value === 'bigint' ? `${value}` : value));
  expect(createHash('sha256').update(text).digest('hex')).toBe(
    '677e64e1dc381005c54979778fb4a99e201c264b33a98ab3a9461dd77be1c642',
  );
});
