import { expect, test } from 'vitest';
import type { SecondaryMessage } from '../../../src/peer-protocol/messages.ts';
import { duplexGroup } from './duplex-group.ts';
import { A, B, type TestGroup } from './group.ts';
import { BLOCK } from './member.ts';

/** Time goes by, and every 100 ms the primary hears that from its secondary. */
function passHearing(group: TestGroup, ms: number, message: SecondaryMessage): void {
  const { session } = group.get(A).effectsOf('connect').at(-1)!;
  for (let at = 0; at < ms; at += 100) {
    group.pass(100);
    group.push(A, { kind: 'from-secondary', from: B, session, message });
  }
}

/** What the primary says is on a slow link. */
function slowLink(group: TestGroup): void {
  group.park((input) => input.kind === 'from-primary');
}

const suspensions = (group: TestGroup) =>
  group
    .get(A)
    .effectsOf('report')
    .filter(({ pair }) => pair === 'suspended').length;

test('who receives something is not silent, and what has not come there has not been left undone', () => {
  const group = duplexGroup([A, B]);
  slowLink(group);
  const write = group.write(A, 0, 1);
  passHearing(group, 9_000, { kind: 'receiving' });
  expect(suspensions(group)).toBe(0);
  expect(group.answer(write)).toBeUndefined();
  group.unpark();
  expect(group.answer(write)).toBe('done');
  group.pass(3_000);
  expect(suspensions(group)).toBe(0);
});

test('I11: a heartbeat that was long on its way grants no more than from when it was sent', () => {
  const group = duplexGroup([A, B]);
  group.isDirectoryUp = false;
  group.pass(1_000);
  slowLink(group);
  const { replica } = group.get(A);
  passHearing(group, 5_000, { kind: 'receiving' });
  expect(replica.servesNow(group.nowMs)).toBe(false);
  group.unpark(); // answers of all that were sent in 5 s: the last 500 ms ago at most
  expect(replica.servesNow(group.nowMs)).toBe(true);
  expect(replica.servesNow(group.nowMs + 3_000)).toBe(false);
});

test('a silent link is noticed as soon as ever', () => {
  const group = duplexGroup([A, B]);
  slowLink(group);
  const write = group.write(A, 0, 1);
  group.pass(2_700);
  expect(suspensions(group)).toBe(1);
  expect(group.answer(write)).toBe('done');
});

test('a disk that hangs is noticed, though its member answers heartbeats: its time begins when the operation has come', () => {
  const group = duplexGroup([A, B]);
  group.park((input) => input.kind === 'from-secondary' && input.message.kind === 'ack');
  group.write(A, 0, 1);
  group.pass(2_000);
  expect(suspensions(group)).toBe(0);
  group.pass(1_000);
  expect(suspensions(group)).toBe(1);
});

test('also when others are acknowledged meanwhile', () => {
  const group = duplexGroup([A, B]);
  let first: number | undefined;
  group.park((input) => {
    if (input.kind !== 'from-secondary' || input.message.kind !== 'ack') return false;
    first ??= input.message.seq;
    return input.message.seq === first;
  });
  group.write(A, 0, 1);
  for (let n = 1; n <= 30; n++) {
    group.write(A, n * BLOCK, 1);
    group.pass(100);
  }
  expect(suspensions(group)).toBe(1);
});

test('a link over which next to nothing comes is given up in the end: hosts wait for it', () => {
  const group = duplexGroup([A, B]);
  slowLink(group);
  const write = group.write(A, 0, 1);
  passHearing(group, 31_000, { kind: 'receiving' });
  expect(suspensions(group)).toBe(1);
  expect(group.answer(write)).toBe('done');
});
