import { expect, test } from 'vitest';
import { Kind } from '../../../src/peer-protocol/constants.ts';
import { takePorts } from '../../support/ports.ts';
import { frame, HELLO, helloFrame, ranges, text } from './lab.ts';
import { ANSWER, dial, openPair, RawPeer, rawServer, startServer, turns, WINDOW } from './link-lab.ts';

const welcome = frame({ kind: Kind.welcome, number: 8, length: WINDOW.bytesMax, value: 1 });
const ready = frame({ kind: Kind.ready });

test('the secondary hears the hello, and the primary the answer', async () => {
  const unsettled = [{ offset: 0, length: 4096 }];
  const alone = [{ offset: 8192, length: 4096 }];
  const server = await startServer((link) =>
    link.accept({ welcome: { ...WINDOW, hasLostCache: true }, unsettled, alone }),
  );
  const connected = await dial(server.address);
  expect(server.sessions[0]?.link.hello).toEqual(HELLO);
  expect(server.sessions[0]?.link.remote).toMatch(/^127\.0\.0\.1:\d+$/);
  expect(connected).toMatchObject({
    kind: 'connected',
    welcome: { kind: 'welcome', ...WINDOW, hasLostCache: true },
    unsettled,
    alone,
  });
});

test('very many differences arrive, and cover at least what they were', async () => {
  const unsettled = Array.from({ length: 300_000 }, (_, i) => ({ offset: i * 8192, length: 4096 }));
  const alone = Array.from({ length: 10_000 }, (_, i) => ({ offset: i * 8192, length: 4096 }));
  const server = await startServer((link) => link.accept({ ...ANSWER, unsettled, alone }));
  const connected = await dial(server.address);
  if (connected.kind !== 'connected') throw new Error('refused');
  expect(connected.alone).toEqual(alone);
  expect(connected.unsettled.length).toBeLessThanOrEqual(32 * 4096);
  let at = 0;
  for (const { offset, length } of unsettled) {
    while ((connected.unsettled[at]?.offset ?? Infinity) + (connected.unsettled[at]?.length ?? 0) <= offset)
      at += 1;
    const cover = connected.unsettled[at];
    if (cover === undefined || cover.offset > offset || cover.offset + cover.length < offset + length) {
      throw new Error(`${offset} is not covered`);
    }
  }
});

test('the owner may answer later', async () => {
  const server = await startServer(undefined);
  const connecting = dial(server.address);
  while (server.sessions.length === 0) await turns(1);
  await turns(5);
  server.sessions[0]?.link.accept(ANSWER);
  expect(await connecting).toMatchObject({ kind: 'connected' });
});

test('a refusal arrives with its words, and ends the link on both sides', async () => {
  const refusal = { code: 'stale-epoch', epoch: 9, text: 'x'.repeat(5000) } as const;
  const server = await startServer((link) => link.refuse(refusal));
  expect(await dial(server.address)).toEqual({
    kind: 'refused',
    refusal: { kind: 'refusal', code: 'stale-epoch', epoch: 9, text: 'x'.repeat(1024) },
  });
  expect((await server.sessions[0]?.owner.ends())?.code).toBe('ended');
});

test('no common version is refused as such, without a word to the owner', async () => {
  const server = await startServer((link) => link.accept(ANSWER));
  const peer = await RawPeer.connect(server.address);
  peer.send(helloFrame({ versions: [2, 9] }));
  await peer.until(({ hasEnded }) => hasEnded);
  expect(peer.kinds).toEqual([Kind.refusal]);
  expect(server.sessions).toEqual([]);
});

test('a later version that also speaks this one is welcome', async () => {
  const server = await startServer((link) => link.accept(ANSWER));
  const peer = await RawPeer.connect(server.address);
  peer.send(helloFrame({ versions: [1, 9], behind: Buffer.from('more') }));
  await peer.until(({ kinds }) => kinds.length === 2);
  expect(peer.kinds).toEqual([Kind.welcome, Kind.ready]);
});

test.each([
  ['random words', Buffer.from('GET / HTTP/1.1\r\nHost: nowhere\r\n\r\n'.padEnd(64))],
  ['an operation', frame({ kind: Kind.flush, number: 1 })],
  ['authentication', helloFrame({ authentication: 3 })],
])('%s in place of hello ends that connection, and no other', async (_what, bytes) => {
  const server = await startServer((link) => link.accept(ANSWER));
  const { primary, secondaryOwner } = await openPair(server);
  const peer = await RawPeer.connect(server.address);
  peer.send(bytes);
  await peer.until(({ hasEnded }) => hasEnded);
  primary.send({ kind: 'flush', seq: 1, confirmed: 0 });
  await secondaryOwner.until(() => secondaryOwner.messages.length === 1);
  expect(server.sessions.length).toBe(1);
});

test('an operation before the answer to hello ends the link', async () => {
  const server = await startServer(undefined);
  const peer = await RawPeer.connect(server.address);
  peer.send(helloFrame(), frame({ kind: Kind.flush, number: 1 }));
  await peer.until(({ hasEnded }) => hasEnded);
  expect((await server.sessions[0]?.owner.ends())?.code).toBe('bad-message');
  server.sessions[0]?.link.accept(ANSWER); // too late is nothing
});

const refused = frame({ kind: Kind.refusal, number: 1, value: 6, payload: text('busy') });
const difference = frame({ kind: Kind.difference, payload: ranges([0, 1]) });
test.each([
  ['ready without a welcome', [ready], 'bad-message'],
  ['a difference without a welcome', [difference], 'bad-message'],
  ['two welcomes', [welcome, welcome], 'bad-message'],
  ['a refusal after a welcome', [welcome, refused], 'bad-message'],
  ['differences without end', [welcome, ...Array.from({ length: 65 }, () => difference)], 'too-big'],
  [
    'a version that was not offered',
    [frame({ kind: Kind.welcome, number: 8, length: WINDOW.bytesMax, value: 2 })],
    'version',
  ],
  ['an ack', [frame({ kind: Kind.ack, number: 1, length: 1 })], 'bad-message'],
  ['another protocol', [Buffer.from('NBDMAGICIHAVEOPT'.padEnd(64))], 'bad-magic'],
] as const)('%s in answer to hello is an error of its kind', async (_what, frames, code) => {
  const address = await rawServer((peer) => peer.send(...frames));
  await expect(dial(address)).rejects.toMatchObject({ code });
});

test('a peer that closes, is silent, is not there, or is given up: each is told as such', async () => {
  const closing = await rawServer(
    (peer) => void peer.until(({ kinds }) => kinds.length > 0).then(() => peer.socket.end()),
  );
  await expect(dial(closing)).rejects.toMatchObject({ code: 'closed' });
  const silent = await rawServer(() => undefined);
  await expect(dial(silent, { timeoutMs: 50 })).rejects.toMatchObject({ code: 'silent' });
  const halfway = await rawServer((peer) => peer.send(welcome));
  await expect(dial(halfway, { timeoutMs: 50 })).rejects.toMatchObject({ code: 'silent' });
  const [port = 0] = await takePorts(1);
  await expect(dial({ host: '127.0.0.1', port })).rejects.toMatchObject({ code: 'unreachable' });
  const giveUp = new AbortController();
  const given = dial(silent, { signal: giveUp.signal });
  giveUp.abort();
  await expect(given).rejects.toMatchObject({ code: 'ended' });
  await expect(dial(silent, { signal: giveUp.signal })).rejects.toMatchObject({ code: 'ended' });
});

test('who connects and gives up before the answer is gone for the secondary, too', async () => {
  const server = await startServer(undefined);
  const giveUp = new AbortController();
  const connecting = dial(server.address, { signal: giveUp.signal });
  while (server.sessions.length === 0) await turns(1);
  giveUp.abort();
  await expect(connecting).rejects.toMatchObject({ code: 'ended' });
  expect(['lost', 'closed']).toContain((await server.sessions[0]?.owner.ends())?.code);
});
