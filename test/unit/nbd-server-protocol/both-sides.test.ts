/** A client machine and a server machine talk in memory, through the handshake and the transmission, in all styles. */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ClientHandshake, type ClientStep } from '../../../src/nbd-server-protocol/client-handshake.ts';
import { Command, type HeaderStyle, TransmissionFlag } from '../../../src/nbd-server-protocol/constants.ts';
import type { PendingRequest } from '../../../src/nbd-server-protocol/pending-request.ts';
import { ReplyDecoder } from '../../../src/nbd-server-protocol/reply-decoder.ts';
import { ReplyEncoder } from '../../../src/nbd-server-protocol/reply-encoder.ts';
import { type Request, RequestDecoder } from '../../../src/nbd-server-protocol/request-decoder.ts';
import { RequestEncoder } from '../../../src/nbd-server-protocol/request-encoder.ts';
import { ServerHandshake, type ServerStep } from '../../../src/nbd-server-protocol/server-handshake.ts';
import { testRandom } from '../../support/random.ts';
import { cut, DISK, EXPORTS, findExport } from './lab.ts';
import { present, ReplyCollector } from './wire-lab.ts';

const STYLES: readonly HeaderStyle[] = ['simple', 'structured', 'extended'];
interface Ended {
  readonly client: ClientStep;
  readonly server: ServerStep;
}

/** Lets them talk until both have nothing more to say; `split` cuts what crosses the wire. */
function converse(client: ClientHandshake, split: (bytes: Buffer) => Buffer[] = (bytes) => [bytes]): Ended {
  const server = new ServerHandshake();
  let toClient: Buffer[] = [server.greeting()];
  let clientStep: ClientStep = { kind: 'need-bytes' };
  let serverStep: ServerStep = { kind: 'need-bytes' };
  while (toClient.length > 0) {
    const toServer: Buffer[] = [];
    for (const chunk of toClient.flatMap(split)) {
      client.feed(chunk);
      for (clientStep = client.next(); clientStep.kind === 'send'; clientStep = client.next()) {
        toServer.push(clientStep.bytes);
      }
    }
    toClient = [];
    for (const chunk of toServer.flatMap(split)) {
      server.feed(chunk);
      serverStep = answer(server, toClient);
    }
  }
  return { client: clientStep, server: serverStep };
}

function answer(server: ServerHandshake, replies: Buffer[]): ServerStep {
  for (;;) {
    const step = server.next();
    if (step.kind === 'send') replies.push(step.bytes);
    else if (step.kind === 'list') server.provideList(EXPORTS);
    else if (step.kind === 'find') server.provideExport(findExport(step.name));
    else return step;
  }
}

function connect(headerStyle: HeaderStyle, exportName: string, useGo: boolean): ClientHandshake {
  const metaContexts = ['base:allocation', 'x-volary:two', 'qemu:none'];
  return new ClientHandshake({
    kind: 'connect',
    exportName,
    headerStyle,
    metaContexts,
    requestBlockSizes: true,
    useGo,
  });
}

describe.each(STYLES)('the handshake, %s', (style) => {
  test.each([
    ['GO', true],
    ['EXPORT_NAME', false],
  ])('both sides agree about the session, %s', (_how, useGo) => {
    const { client, server } = converse(connect(style, '', useGo));
    if (client.kind !== 'ready' || server.kind !== 'ready') throw new Error('no agreement');
    const { sizeBytes, ...agreed } = client.session;
    expect(sizeBytes).toBe(DISK.sizeBytes);
    const reached = !useGo && style === 'extended' ? 'structured' : style;
    const contexts = reached === 'simple' ? [] : ['base:allocation', 'x-volary:two'];
    expect(agreed.headerStyle).toBe(reached);
    expect(agreed.contexts.map(({ name }) => name)).toEqual(contexts);
    expect((agreed.transmissionFlags & TransmissionFlag.blockStatusPayload) !== 0).toBe(
      reached === 'extended',
    );
    // EXPORT_NAME tells a client neither the canonical name nor block sizes.
    expect(agreed).toEqual(useGo ? server.session : { ...server.session, exportName: '' });
  });

  test('however the wire is cut', () => {
    const whole = converse(connect(style, 'disk', true));
    fc.assert(
      fc.property(fc.infiniteStream(fc.array(fc.nat(200), { maxLength: 6 })), (places) => {
        const split = (bytes: Buffer) => cut(bytes, places.next().value ?? []);
        expect(converse(connect(style, 'disk', true), split)).toEqual(whole);
      }),
      { seed: testRandom(`conversation ${style}`).seed, numRuns: 100 },
    );
  });

  test('an export that is not there', () => {
    const { client, server } = converse(connect(style, 'missing', true));
    expect(client).toMatchObject({ kind: 'failed', error: { code: 'unknown-export' } });
    expect(server).toMatchObject({ kind: 'close', code: 'aborted' });
  });
});

test('a list', () => {
  const { client, server } = converse(new ClientHandshake({ kind: 'list' }));
  expect(client).toEqual({
    kind: 'listed',
    exports: [{ name: 'disk', description: 'a disk' }, { name: 'other' }],
  });
  expect(server).toMatchObject({ kind: 'close', code: 'aborted' });
});

/** Answers each request from an image: a read as data and a hole, if the style can say so. */
class ImageServer {
  readonly #style: HeaderStyle;
  readonly #image: Buffer;
  readonly #encoder: ReplyEncoder;
  readonly replies: Buffer[] = [];
  #writeAt = 0;
  #tag: Request | undefined;

  constructor(style: HeaderStyle, image: Buffer) {
    this.#style = style;
    this.#image = image;
    this.#encoder = new ReplyEncoder(style);
  }

  request(request: Request): boolean {
    const { command, offset, length } = request;
    if (command === Command.read) this.#read(request, offset, length);
    else if (command === Command.write) this.#writeAt = offset;
    else this.#put(64, (buffer) => this.#encoder.ack(buffer, 0, request));
    const { cookieHigh, cookieLow, offsetHigh, offsetLow, flags, payloadLength } = request;
    this.#tag = {
      cookieHigh,
      cookieLow,
      offsetHigh,
      offsetLow,
      command,
      flags,
      offset,
      length,
      payloadLength,
    };
    return true;
  }

  payload(buffer: Buffer, start: number, length: number, remaining: number): number {
    buffer.copy(this.#image, this.#writeAt, start, start + length);
    this.#writeAt += length;
    if (remaining === 0) this.#put(64, (reply) => this.#encoder.ack(reply, 0, this.#tag!));
    return length;
  }

  #read(request: Request, offset: number, length: number): void {
    const zeroes =
      this.#style === 'simple' ? 0 : trailingZeroes(this.#image.subarray(offset, offset + length));
    const here = length - zeroes;
    if (here > 0) {
      this.#put(64, (buffer) => this.#encoder.dataHeader(buffer, 0, request, offset, here, zeroes === 0));
      this.replies.push(Buffer.from(this.#image.subarray(offset, offset + here)));
    }
    if (zeroes > 0)
      this.#put(64, (buffer) => this.#encoder.hole(buffer, 0, request, offset + here, zeroes, true));
  }

  #put(room: number, put: (buffer: Buffer) => number): void {
    const buffer = Buffer.alloc(room);
    this.replies.push(buffer.subarray(0, put(buffer)));
  }
}

function trailingZeroes(bytes: Buffer): number {
  let count = 0;
  while (count < bytes.length && bytes[bytes.length - 1 - count] === 0) count++;
  return count;
}

describe.each(STYLES)('the transmission, %s', (style) => {
  const range = fc.record({ offset: fc.nat(900), length: fc.integer({ min: 1, max: 100 }), byte: fc.nat(3) });
  test('what is written is read, however the wire is cut', () => {
    const cuts = fc.infiniteStream(fc.array(fc.nat(400), { maxLength: 6 }));
    fc.assert(
      fc.property(fc.array(range, { minLength: 1, maxLength: 12 }), cuts, (writes, places) => {
        const split = (bytes: Buffer) => cut(bytes, places.next().value ?? []);
        const model = Buffer.alloc(1000);
        const server = new ImageServer(style, Buffer.alloc(1000));
        const encoder = new RequestEncoder(style);
        const sent: Buffer[] = [];
        const send = (cookie: number, command: number, offset: number, payload: Buffer, length: number) => {
          const header = Buffer.alloc(encoder.headerBytes);
          encoder.header(header, 0, { command, flags: 0, cookie, offset, length });
          sent.push(header, payload);
          return { cookie, command, flags: 0, offset, length };
        };
        const requests = writes.map(({ offset, length, byte }, i) => {
          model.fill(byte, offset, offset + length);
          return send(i, Command.write, offset, Buffer.alloc(length, byte), length);
        });
        requests.push(send(1000, Command.read, 0, Buffer.alloc(0), 1000));
        const requestDecoder = new RequestDecoder(style);
        const leftOfRequests = present(split(Buffer.concat(sent)), (buffer, start, end) =>
          requestDecoder.feed(buffer, start, end, server),
        );
        const client = new ReplyCollector(requests);
        const replyDecoder = new ReplyDecoder<PendingRequest>(style);
        const leftOfReplies = present(split(Buffer.concat(server.replies)), (buffer, start, end) =>
          replyDecoder.feed(buffer, start, end, client),
        );
        expect(leftOfRequests.length + leftOfReplies.length).toBe(0);
        const image = Buffer.alloc(1000);
        for (const event of client.events)
          if (event.kind === 'data') image.write(event.bytes, event.offset, 'hex');
        expect(image).toEqual(model);
        expect(client.events.filter(({ kind }) => kind === 'done').length).toBe(requests.length);
      }),
      { seed: testRandom(`transmission ${style}`).seed, numRuns: 100 },
    );
  });
});
