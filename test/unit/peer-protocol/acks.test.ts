import { expect, test } from 'vitest';
import { Kind } from '../../../src/peer-protocol/constants.ts';
import { frame, helloFrame } from './lab.ts';
import { ANSWER, RawPeer, startServer } from './link-lab.ts';

function flush(seq: number): Buffer {
  return frame({ kind: Kind.flush, number: seq });
}

test('acknowledgements that follow one another are one message, each is handed over, and nothing overtakes them', async () => {
  const server = await startServer((link) => link.accept(ANSWER));
  const peer = await RawPeer.connect(server.address);
  peer.send(helloFrame(), ...[1, 2, 3, 4, 5, 6].map(flush), frame({ kind: Kind.heartbeat, number: 9 }));
  await peer.until(({ kinds }) => kinds.length === 2);
  const session = server.sessions[0];
  if (session === undefined) throw new Error('no hello came');
  await session.owner.until(() => session.owner.messages.length === 7);
  const { link } = session;
  for (const seq of [1, 2, 3]) link.send({ kind: 'ack', seq, result: 'done' });
  link.send({ kind: 'ack', seq: 4, result: 'io' });
  link.send({ kind: 'ack', seq: 6, result: 'io' });
  link.send({ kind: 'heartbeat-ack', token: 9, received: 6 });
  link.send({ kind: 'ack', seq: 5, result: 'io' });
  await peer.until(({ kinds }) => kinds.length === 7);
  expect(peer.frames.slice(2)).toEqual([
    frame({ kind: Kind.ack, number: 3, length: 3 }),
    frame({ kind: Kind.ack, number: 4, length: 1, value: 2 }),
    frame({ kind: Kind.ack, number: 6, length: 1, value: 2 }),
    frame({ kind: Kind.heartbeatAck, number: 9, confirmed: 6 }),
    frame({ kind: Kind.ack, number: 5, length: 1, value: 2 }),
  ]);
});

test('acknowledgements that are kept back leave before the link is closed', async () => {
  const server = await startServer((link) => link.accept(ANSWER));
  const peer = await RawPeer.connect(server.address);
  peer.send(helloFrame(), flush(1), flush(2));
  await peer.until(({ kinds }) => kinds.length === 2);
  const session = server.sessions[0];
  if (session === undefined) throw new Error('no hello came');
  await session.owner.until(() => session.owner.messages.length === 2);
  for (const seq of [1, 2]) session.link.send({ kind: 'ack', seq, result: 'done' });
  session.link.close();
  await peer.until(({ hasEnded }) => hasEnded);
  expect(peer.frames.slice(2)).toEqual([frame({ kind: Kind.ack, number: 2, length: 2 })]);
});
