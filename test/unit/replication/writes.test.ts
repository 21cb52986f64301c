import { describe, expect, test } from 'vitest';
import { areEqual, duplexGroup } from './duplex-group.ts';
import { A, B, C, TestGroup } from './group.ts';
import { BLOCK } from './member.ts';

describe('a group comes into being', () => {
  test('a primary with data gets a secondary: what is allocated is copied, then it is duplex', () => {
    const group = new TestGroup([A]);
    group.run();
    group.tell();
    expect(group.answer(group.write(A, 0, 1))).toBe('done');
    group.newMember(B);
    const member = {
      ...group.config.members[0]!,
      realVolume: B,
      pair: 'suspended',
    } as (typeof group.config.members)[0];
    group.tell({ members: [...group.config.members, member] });
    group.pass(500);
    expect(group.pairOf(B)).toBe('duplex');
    expect(areEqual(group, A, B)).toBe(true);
    expect(group.get(A).durable?.mayBeInStep).toEqual([B]);
  });

  test('three members, writes at once', () => {
    const group = duplexGroup([A, B, C]);
    for (let at = 0; at < 50; at++) expect(group.answer(group.write(A, at * 1024, at))).toBe('done');
    expect(areEqual(group, A, B, C)).toBe(true);
  });
});

test('suspension and resync', () => {
  const group = duplexGroup([A, B]);
  group.cutOff(B);
  const token = group.write(A, 0, 7);
  group.pass(300);
  expect(group.answer(token)).toBe('done');
  expect(group.pairOf(B)).toBe('suspended');
  expect(group.get(A).lacks(B)).toBe(1);
  group.write(A, 9 * BLOCK, 8);
  group.cut.clear();
  group.pass(5000);
  expect(group.pairOf(B)).toBe('duplex');
  expect(areEqual(group, A, B)).toBe(true);
  expect(group.get(A).lacks(B)).toBe(0);
});

test('failover', () => {
  const group = duplexGroup([A, B, C]);
  group.write(A, 0, 7);
  group.kill(A);
  group.promote(B, false);
  const token = group.write(B, 4096, 9);
  expect(group.answer(token)).toBeUndefined();
  group.pass(3500);
  expect(group.answer(token)).toBe('done');
  group.start(A);
  group.tell();
  group.pass(5000);
  expect(group.pairOf(A)).toBe('duplex');
  expect(areEqual(group, A, B, C)).toBe(true);
});

test('hand-over', () => {
  const group = duplexGroup([A, B, C]);
  group.write(A, 0, 7);
  group.push(A, { kind: 'hand-over', token: 5, epoch: 2, to: B });
  expect(group.get(A).effectsOf('handed-over')).toMatchObject([{ token: 5, isRefused: false }]);
  const held = group.write(A, 0, 8);
  expect(group.answer(held)).toBeUndefined();
  group.promote(B, true);
  expect(group.answer(held)).toBe('forwarded');
  const token = group.write(B, 4096, 9);
  expect(group.answer(token)).toBe('done');
  expect(areEqual(group, A, B, C)).toBe(true);
});
