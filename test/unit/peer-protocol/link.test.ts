import { afterEach, expect, test } from 'vitest';
import { Kind } from '../../../src/peer-protocol/constants.ts';
import type { PrimaryLink } from '../../../src/peer-protocol/links.ts';
import type { PrimaryMessage, SecondaryMessage } from '../../../src/peer-protocol/messages.ts';
import { seededRandom } from '../../support/random.ts';
import { ANSWERS, frame, helloFrame, OPERATIONS, randomBytes } from './lab.ts';
import {
  ANSWER,
  dial,
  Owner,
  openPair,
  type Pair,
  RawPeer,
  rawServer,
  startServer,
  turns,
  WINDOW,
  writeMessage,
} from './link-lab.ts';

const pairs: Pair[] = [];

async function pair(...parameters: Parameters<typeof openPair>): Promise<Pair> {
  const opened = await openPair(...parameters);
  pairs.push(opened);
  return opened;
}

afterEach(() => {
  const breaches = pairs.flatMap(({ primaryOwner, secondaryOwner }) => [
    ...primaryOwner.breaches,
    ...secondaryOwner.breaches,
  ]);
  pairs.length = 0;
  expect(breaches).toEqual([]);
});

/** Acknowledges as it comes. */
function acknowledge({ secondary, secondaryOwner }: Pair): void {
  secondaryOwner.whenBatch = (batch) => {
    for (const message of batch) {
      if (message.kind !== 'heartbeat') secondary.send({ kind: 'ack', seq: message.seq, result: 'done' });
    }
  };
}

/** What takes its time to come may be said to be coming, before. */
function acks({ messages }: Owner<SecondaryMessage>): number {
  return messages.filter(({ kind }) => kind === 'ack').length;
}

test('every message arrives as it was, there and back', async () => {
  const { primary, primaryOwner, secondary, secondaryOwner } = await pair();
  const sent = OPERATIONS.map(
    (message, i): PrimaryMessage =>
      message.kind === 'heartbeat' ? { ...message, confirmed: 0 } : { ...message, seq: i + 1, confirmed: 0 },
  );
  primaryOwner.calls(() => {
    for (const message of sent) primary.send(message);
  });
  await secondaryOwner.until(() => secondaryOwner.messages.length === sent.length);
  expect(secondaryOwner.messages).toEqual(sent);
  const answers = ANSWERS.map((message, i) =>
    message.kind === 'ack'
      ? { ...message, seq: i + 1 }
      : message.kind === 'heartbeat-ack'
        ? { ...message, received: 10 }
        : message,
  );
  secondaryOwner.calls(() => {
    for (const message of answers) secondary.send(message);
  });
  await primaryOwner.until(() => primaryOwner.messages.length === answers.length);
  expect(primaryOwner.messages).toEqual(answers);
});

test('what is sent in one turn is handed over in one call', async () => {
  const { primary, secondaryOwner, ...rest } = await pair();
  acknowledge({ primary, secondaryOwner, ...rest });
  for (let seq = 1; seq <= 8; seq++) primary.send(writeMessage(seq, Buffer.alloc(4096)));
  await rest.primaryOwner.until(() => rest.primaryOwner.messages.length === 8);
  expect(secondaryOwner.batches.length).toBe(1);
  expect(rest.primaryOwner.batches.length).toBe(1);
});

test('the window is kept: what is beyond it waits, in order, for acknowledgements', async () => {
  const { primary, primaryOwner, secondary, secondaryOwner } = await pair();
  for (let seq = 1; seq <= 200; seq++) primary.send({ kind: 'flush', seq, confirmed: 0 });
  expect(primary.unacknowledged.operations).toBe(WINDOW.operationsMax);
  expect(primary.waiting).toBe(200 - WINDOW.operationsMax);
  await secondaryOwner.until(() => secondaryOwner.messages.length === WINDOW.operationsMax);
  await turns(20);
  expect(secondaryOwner.messages.length).toBe(WINDOW.operationsMax);
  secondary.send({ kind: 'ack', seq: 3, result: 'io' }); // in any order
  await secondaryOwner.until(() => secondaryOwner.messages.length === WINDOW.operationsMax + 1);
  const last = secondaryOwner.messages.at(-1);
  expect(last).toMatchObject({ kind: 'flush', seq: WINDOW.operationsMax + 1 });
  for (let seq = 1; seq <= 200; seq++) {
    await secondaryOwner.until(() => secondaryOwner.messages.length >= seq);
    if (seq !== 3) secondary.send({ kind: 'ack', seq, result: 'done' });
  }
  await primaryOwner.until(() => primaryOwner.messages.length === 200);
  expect(secondaryOwner.messages).toMatchObject(Array.from({ length: 200 }, (_, i) => ({ seq: i + 1 })));
  expect([primary.unacknowledged, primary.waiting]).toEqual([{ operations: 0, bytes: 0 }, 0]);
});

test('the window counts bytes, too', async () => {
  const { primary, secondary, secondaryOwner } = await pair();
  const half = Buffer.alloc(WINDOW.bytesMax / 2, 1);
  for (const [i, payload] of [half, half, Buffer.alloc(1)].entries())
    primary.send(writeMessage(i + 1, payload));
  primary.send({ kind: 'flush', seq: 4, confirmed: 0 }); // would fit, and is behind one that does not
  await secondaryOwner.until(() => secondaryOwner.messages.length === 2);
  expect(primary.unacknowledged).toEqual({ operations: 2, bytes: WINDOW.bytesMax });
  expect(primary.waiting).toBe(2);
  secondary.send({ kind: 'ack', seq: 2, result: 'done' });
  await secondaryOwner.until(() => secondaryOwner.messages.length === 4);
  expect(secondaryOwner.messages).toMatchObject([{ seq: 1 }, { seq: 2 }, { seq: 3 }, { seq: 4 }]);
});

test('a heartbeat does not wait for the window, and confirms no more than was sent', async () => {
  const { primary, secondaryOwner } = await pair();
  for (let seq = 1; seq <= 100; seq++) primary.send({ kind: 'flush', seq, confirmed: 0 });
  primary.send({ kind: 'heartbeat', token: 5, confirmed: 90 });
  await secondaryOwner.until(() => secondaryOwner.messages.length === WINDOW.operationsMax + 1);
  expect(secondaryOwner.messages.at(-1)).toEqual({
    kind: 'heartbeat',
    token: 5,
    confirmed: WINDOW.operationsMax,
  });
});

test('a heartbeat comes behind what the kernel takes next, not behind the window', async () => {
  const { primary, secondaryOwner } = await pair();
  const payload = Buffer.alloc(1 << 20);
  for (let seq = 1; seq <= 32; seq++) primary.send(writeMessage(seq, payload));
  primary.send({ kind: 'heartbeat', token: 5, confirmed: 0 });
  await secondaryOwner.until(() => secondaryOwner.messages.length === 33); // nothing has been acknowledged
  const before = secondaryOwner.messages.findIndex(({ kind }) => kind === 'heartbeat');
  expect(before).toBeLessThan(24); // the kernel's buffers have room for some
});

test('within a message that takes its time to come the secondary says that it is coming', async () => {
  const server = await startServer((link) => link.accept(ANSWER));
  const peer = await RawPeer.connect(server.address);
  peer.send(helloFrame());
  await peer.until(({ kinds }) => kinds.length === 2);
  const write = frame({ kind: Kind.write, number: 1, length: 1 << 20, payload: Buffer.alloc(1 << 20) });
  let at = 0;
  const drip = setInterval(() => {
    peer.send(write.subarray(at, at + 4096));
    at += 4096;
  }, 5);
  await peer.until(({ kinds }) => kinds.length >= 5);
  clearInterval(drip);
  expect(peer.kinds.slice(2, 5)).toEqual([Kind.receiving, Kind.receiving, Kind.receiving]);
  peer.send(write.subarray(at));
  const session = server.sessions[0];
  await session?.owner.until(() => session.owner.messages.length === 1);
});

test('operations that waited say what has been confirmed since', async () => {
  const { primary, secondary, secondaryOwner } = await pair();
  for (let seq = 1; seq <= 65; seq++) primary.send({ kind: 'flush', seq, confirmed: 0 });
  primary.send({ kind: 'heartbeat', token: 1, confirmed: 40 });
  await secondaryOwner.until(() => secondaryOwner.messages.length === 65);
  secondary.send({ kind: 'ack', seq: 1, result: 'done' });
  await secondaryOwner.until(() => secondaryOwner.messages.length === 66);
  expect(secondaryOwner.messages.at(-1)).toEqual({ kind: 'flush', seq: 65, confirmed: 40 });
});

test('large and small payloads arrive whole, under load in both directions', async () => {
  const opened = await pair();
  const { primary, primaryOwner, secondary, secondaryOwner } = opened;
  const random = seededRandom(11);
  const content = randomBytes(random, 1 << 20);
  const sizes = [1, 512, 4096, 16_384, 16_385, 65_536, 300_000, 1 << 20];
  const payloads = Array.from({ length: 300 }, () => {
    const size = sizes[random.below(sizes.length)] as number;
    const from = random.below(content.length - size + 1);
    return content.subarray(from, from + size);
  });
  let wrong = 0;
  secondaryOwner.whenBatch = (batch) => {
    for (const message of batch) {
      if (message.kind !== 'write' || !message.payload.equals(payloads[message.seq - 1] as Buffer))
        wrong += 1;
      else secondary.send({ kind: 'ack', seq: message.seq, result: 'done' });
    }
  };
  for (const [i, payload] of payloads.entries()) primary.send(writeMessage(i + 1, payload));
  await primaryOwner.until(() => acks(primaryOwner) === payloads.length);
  expect(wrong).toBe(0);
});

test('the largest write goes through', async () => {
  const opened = await pair();
  acknowledge(opened);
  const payload = Buffer.alloc(WINDOW.bytesMax, 7);
  opened.primary.send(writeMessage(1, payload));
  await opened.primaryOwner.until(() => acks(opened.primaryOwner) === 1);
  const [got] = opened.secondaryOwner.messages;
  expect(got?.kind === 'write' && got.length).toBe(payload.length);
});

test('close lets what was sent arrive first; both sides are told once', async () => {
  const { primary, primaryOwner, secondary, secondaryOwner } = await pair();
  primary.send({ kind: 'flush', seq: 1, confirmed: 0 });
  await secondaryOwner.until(() => secondaryOwner.messages.length === 1);
  for (let seq = 2; seq <= 40; seq++) primary.send(writeMessage(seq, Buffer.alloc(100_000)));
  secondaryOwner.calls(() => {
    secondary.send({ kind: 'ack', seq: 1, result: 'done' });
    secondary.send({ kind: 'fenced', epoch: 8 });
    secondary.close();
    secondary.send({ kind: 'heartbeat-ack', token: 1, received: 0 }); // goes nowhere
  });
  expect(secondary.isOpen).toBe(false);
  expect((await primaryOwner.ends()).code).toBe('closed');
  expect((await secondaryOwner.ends()).code).toBe('ended');
  expect(primaryOwner.messages).toEqual([
    { kind: 'ack', seq: 1, result: 'done' },
    { kind: 'fenced', epoch: 8 },
  ]);
  expect(secondaryOwner.messages.length).toBe(1);
});

test('destroy ends at once: nothing that was on its way is handed over', async () => {
  const { primary, primaryOwner, secondary, secondaryOwner } = await pair();
  primary.send({ kind: 'flush', seq: 1, confirmed: 0 });
  await secondaryOwner.until(() => secondaryOwner.messages.length === 1);
  secondary.send({ kind: 'ack', seq: 1, result: 'done' });
  primary.send({ kind: 'flush', seq: 2, confirmed: 0 });
  await turns(1); // it is with the kernel, or further
  const [before, beforeSecondary] = [primaryOwner.messages.length, secondaryOwner.messages.length];
  primaryOwner.calls(() => primary.destroy());
  secondaryOwner.calls(() => secondary.destroy());
  expect([primary.isOpen, secondary.isOpen]).toEqual([false, false]);
  expect((await primaryOwner.ends()).code).toBe('ended');
  expect((await secondaryOwner.ends()).code).toBe('ended');
  primary.destroy();
  primary.send({ kind: 'flush', seq: 3, confirmed: 0 });
  await turns(10);
  expect([primaryOwner.messages.length, secondaryOwner.messages.length]).toEqual([before, beforeSecondary]);
});

test('an owner that ends the link while it is handed a batch gets nothing more', async () => {
  const opened = await pair();
  opened.secondaryOwner.whenBatch = () => opened.secondary.destroy();
  for (let seq = 1; seq <= 40; seq++) opened.primary.send(writeMessage(seq, Buffer.alloc(100_000)));
  expect((await opened.secondaryOwner.ends()).code).toBe('ended');
  expect(opened.secondaryOwner.batches.length).toBe(1);
  expect(['lost', 'closed']).toContain((await opened.primaryOwner.ends()).code);
});

test('a peer that is gone is told, with what came before in front of it', async () => {
  const { primary, primaryOwner, secondaryOwner } = await pair();
  primary.send({ kind: 'flush', seq: 1, confirmed: 0 });
  await secondaryOwner.until(() => secondaryOwner.messages.length === 1);
  primary.close();
  expect((await secondaryOwner.ends()).code).toBe('closed');
  expect((await primaryOwner.ends()).code).toBe('ended');
});

/** A link whose peer has said goodbye before it was started. */
async function fencedBeforeStart(): Promise<PrimaryLink> {
  const server = await startServer((link) => {
    link.accept(ANSWER);
    link.send({ kind: 'fenced', epoch: 3 });
    link.close();
  });
  const connected = await dial(server.address);
  if (connected.kind !== 'connected') throw new Error('refused');
  while (connected.link.isOpen) await turns(1);
  await turns(5);
  return connected.link;
}

test('messages and an end that came before start are handed over by it', async () => {
  const link = await fencedBeforeStart();
  const owner = new Owner();
  owner.calls(() => link.start(owner));
  expect((await owner.ends()).code).toBe('closed');
  expect([owner.messages, owner.breaches]).toEqual([[{ kind: 'fenced', epoch: 3 }], []]);
});

test('messages that came before start are not handed over to who has ended the link', async () => {
  const link = await fencedBeforeStart();
  const owner = new Owner();
  owner.calls(() => {
    link.start(owner);
    link.destroy();
  });
  await owner.ends();
  expect([owner.messages, owner.breaches]).toEqual([[], []]);
});

const flush = (seq: number, confirmed = 0): Buffer => frame({ kind: Kind.flush, number: seq, confirmed });
const broken = frame({ kind: Kind.flush, number: 2, sum: 1 });
const claim = (bytes: number): Buffer =>
  frame({ kind: Kind.write, number: 2, length: bytes, payloadBytes: bytes, payloadSum: 1 });
test.each([
  ['a broken frame', [broken], 'bad-checksum'],
  ['a number left out', [flush(3)], 'bad-message'],
  ['a number again', [flush(1)], 'bad-message'],
  ['a confirmation of what was not sent', [flush(2, 3)], 'bad-message'],
  [
    'more operations than were granted',
    Array.from({ length: WINDOW.operationsMax }, (_, i) => flush(i + 2)),
    'overrun',
  ],
  [
    'more bytes than were granted',
    [frame({ kind: Kind.write, number: 2, length: 1, payload: Buffer.of(1) }), claim(WINDOW.bytesMax)],
    'overrun',
  ],
  ['a second hello', [helloFrame()], 'bad-message'],
  [
    'more heartbeats than anybody answers',
    Array.from({ length: 1025 }, (_, i) => frame({ kind: Kind.heartbeat, number: i })),
    'overrun',
  ],
] as const)('%s ends the link behind what was right, and no other', async (_what, frames, code) => {
  const server = await startServer((link) => link.accept(ANSWER));
  const other = await pair(server);
  const peer = await RawPeer.connect(server.address);
  peer.send(helloFrame());
  await peer.until(({ kinds }) => kinds.length === 2);
  const session = server.sessions[1];
  peer.send(flush(1), ...frames);
  expect((await session?.owner.ends())?.code).toBe(code);
  expect(session?.owner.messages[0]).toEqual({ kind: 'flush', seq: 1, confirmed: 0 });
  expect(session?.owner.messages.length).toBeLessThan(1 + frames.length + 1);
  expect(session?.owner.breaches).toEqual([]);
  await peer.until(({ hasEnded }) => hasEnded);
  acknowledge(other);
  other.primary.send({ kind: 'flush', seq: 1, confirmed: 0 });
  await other.primaryOwner.until(() => other.primaryOwner.messages.length === 1);
});

const ack = frame({ kind: Kind.ack, number: 1, length: 1 });
const welcome = frame({ kind: Kind.welcome, number: 8, length: WINDOW.bytesMax, value: 1 });
test.each([
  ['an ack of nothing', [frame({ kind: Kind.ack, number: 2, length: 1 })], [], 'bad-message'],
  ['an ack again', [ack, ack], ['ack'], 'bad-message'],
  [
    'an ack of one, and of one too many',
    [frame({ kind: Kind.ack, number: 2, length: 2 })],
    ['ack'],
    'bad-message',
  ],
  ['an ack of a million', [frame({ kind: Kind.ack, number: 2 ** 40, length: 2 ** 20 })], [], 'bad-message'],
  ['an answer to no heartbeat', [frame({ kind: Kind.heartbeatAck })], [], 'bad-message'],
  ['that it receives what is acknowledged', [ack, frame({ kind: Kind.receiving })], ['ack'], 'bad-message'],
  ['a word after fenced', [frame({ kind: Kind.fenced, number: 1 }), ack], ['fenced'], 'bad-message'],
  ['a broken frame behind a good one', [ack, broken], ['ack'], 'bad-checksum'],
  ['a word of the handshake', [welcome], [], 'bad-message'],
] as const)('a secondary that says %s is left', async (_what, frames, kinds, code) => {
  const address = await rawServer((peer) => {
    void peer
      .until(({ kinds: got }) => got.length === 1)
      .then(async () => {
        peer.send(welcome, frame({ kind: Kind.ready }));
        await peer.until(({ kinds: got }) => got.length === 2);
        peer.send(...frames);
      });
  });
  const connected = await dial(address);
  if (connected.kind !== 'connected') throw new Error('refused');
  const owner = new Owner<{ readonly kind: string }>();
  connected.link.start(owner);
  connected.link.send({ kind: 'flush', seq: 1, confirmed: 0 });
  expect((await owner.ends()).code).toBe(code);
  expect(owner.messages.map(({ kind }) => kind)).toEqual(kinds);
  expect(owner.breaches).toEqual([]);
});

test('an ack of what has not left yet ends the link: its payload may be in use', async () => {
  const address = await rawServer((peer) => {
    void peer
      .until(({ kinds }) => kinds.length === 1)
      .then(() => {
        peer.socket.pause();
        const wide = frame({ kind: Kind.welcome, number: 8, length: 2 ** 29, value: 1 });
        peer.send(wide, frame({ kind: Kind.ready }));
        setTimeout(() => peer.send(frame({ kind: Kind.ack, number: 1, length: 1 })), 100);
      });
  });
  const connected = await dial(address);
  if (connected.kind !== 'connected') throw new Error('refused');
  const owner = new Owner<unknown>();
  connected.link.start(owner);
  const payload = Buffer.alloc(WINDOW.bytesMax);
  for (let seq = 1; seq <= 8; seq++) connected.link.send(writeMessage(seq, payload));
  expect((await owner.ends()).code).toBe('bad-message');
  expect(owner.messages).toEqual([]);
});

test('a primary that takes no acknowledgements is left before they are many', async () => {
  const server = await startServer((link) => link.accept(ANSWER));
  const peer = await RawPeer.connect(server.address);
  peer.send(helloFrame());
  await peer.until(({ kinds }) => kinds.length === 2);
  peer.socket.pause();
  const session = server.sessions[0];
  if (session === undefined) throw new Error('no hello came');
  session.owner.whenBatch = (batch) => {
    for (const message of batch) {
      if (message.kind === 'heartbeat')
        session.link.send({ kind: 'heartbeat-ack', token: message.token, received: 0 });
    }
  };
  const many = Buffer.concat(
    Array.from({ length: 1000 }, (_, i) => frame({ kind: Kind.heartbeat, number: i })),
  );
  const flood = setInterval(() => peer.socket.write(many), 1);
  const reason = await session.owner.ends();
  clearInterval(flood);
  expect(reason.code).toBe('overrun');
});

test('a server that is closed ends all its links, and takes no more', async () => {
  const server = await startServer((link) => link.accept(ANSWER));
  const [one, two] = [await pair(server), await pair(server)];
  await server.server.close();
  expect([one.secondaryOwner.closed?.code, two.secondaryOwner.closed?.code]).toEqual(['ended', 'ended']);
  await one.primaryOwner.ends();
  await two.primaryOwner.ends();
  await expect(dial(server.address)).rejects.toMatchObject({ code: 'unreachable' });
});

test('a connection without a hello is closed after a while', async () => {
  const server = await startServer(undefined);
  const peer = await RawPeer.connect(server.address);
  peer.send(helloFrame().subarray(0, 100));
  await peer.until(({ hasEnded }) => hasEnded);
  expect(server.sessions).toEqual([]);
});
