/** Members that may be promoted lack what others have got: a write that was under way when the primary died, and that has been copied since. */

import { describe, expect, test } from 'vitest';
import type { MemberId } from '../../../src/peer-protocol/messages.ts';
import { areEqual, duplexGroup } from './duplex-group.ts';
import { A, B, C, D, type TestGroup } from './group.ts';

/** C cannot be reached, and lacks a write; all others have it, and have been called equal. The record says that C is duplex. */
function oneLacksAWrite(ids: readonly MemberId[]): TestGroup {
  const group = duplexGroup(ids);
  group.isDirectoryUp = false;
  group.cutOff(C);
  group.write(A, 0, 1);
  group.kill(A);
  group.start(A);
  group.pass(500);
  expect(ids.map((id) => group.get(id).disk[0])).toEqual(ids.map((id) => (id === C ? 0 : 1)));
  expect(group.get(B).unsettled).toEqual([]);
  expect(group.get(B).lacks(C)).toBe(1);
  group.kill(A);
  group.isDirectoryUp = true;
  group.cut.clear();
  group.cutOff(B);
  return group;
}

describe('I13: who became primary made others as itself', () => {
  test.each([
    ['hears', [B, C]],
    ['does not hear', [C]],
  ] as const)(
    'a member that was equal tells one of those what the first lacks: it %s who that is',
    (_, told) => {
      const group = oneLacksAWrite([A, B, C]);
      group.promote(C, false, {}, told);
      group.start(A);
      group.tell({}, [A, C]);
      group.pass(5000);
      expect([A, B].map((id) => group.pairOf(id))).toEqual(['duplex', 'suspended']);
      expect(areEqual(group, A, C)).toBe(true);
      group.kill(C);
      group.cut.clear();
      group.promote(A, false);
      group.pass(8000);
      expect(group.pairOf(B)).toBe('duplex');
      expect(areEqual(group, A, B)).toBe(true);
    },
  );

  test.each([
    ['hears', [B, C, D]],
    ['does not hear', [C, D]],
  ] as const)(
    'a member that was equal, and is promoted, knows what they lack: it %s who the first is',
    (_, told) => {
      const group = oneLacksAWrite([A, B, C, D]);
      group.promote(C, false, {}, told);
      group.pass(500);
      expect(areEqual(group, C, D)).toBe(true);
      expect(group.pairOf(B)).toBe('duplex');
      group.kill(C);
      group.cut.clear();
      group.promote(B, false);
      group.tell();
      group.pass(8000);
      expect(group.get(B).replica.view()).toMatchObject({ role: 'primary', serving: true });
      expect(group.pairOf(D)).toBe('duplex');
      expect(areEqual(group, B, D)).toBe(true);
    },
  );
});

test('I7: nothing is copied while one that is being left, and lacks it, may still be promoted', () => {
  const group = duplexGroup([A, B, C]);
  group.tell({ members: group.setPair(C, { wanted: 'suspended' }) });
  group.pass(500);
  group.isDirectoryUp = false;
  group.cutOff(B);
  group.write(A, 0, 1);
  group.kill(A);
  group.start(A);
  // What C has been told so far is that it is copied to, and what is copied; not what B lacks.
  group.park((input, at) => {
    const isAck = input.kind === 'from-secondary' && input.message.kind === 'ack';
    return at === A && isAck && input.message.kind === 'ack' && input.message.seq > 2;
  });
  group.tell({ members: group.setPair(C, { wanted: 'following' }) }, [A]);
  group.pass(5000);
  const { pairs } = group.get(A).replica.view();
  expect(pairs.map(({ state }) => state)).toEqual(['leaving', 'copying']);
  group.kill(A);
  group.isDirectoryUp = true;
  group.cut.clear();
  group.promote(B, false);
  group.pass(8000);
  expect(group.pairOf(C)).toBe('duplex');
  expect(areEqual(group, B, C)).toBe(true);
});
