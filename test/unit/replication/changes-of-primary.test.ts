import { describe, expect, test } from 'vitest';
import { areEqual, duplexGroup } from './duplex-group.ts';
import { A, B, C } from './group.ts';
import { BLOCK } from './member.ts';

describe('changes of primary', () => {
  test('I12: a member that was new to the promoted one lacks everything, and is zeroed first', () => {
    const group = duplexGroup([A, B]);
    group.write(A, 0, 1);
    group.kill(A);
    group.newMember(C).disk.fill(9);
    const members = [
      ...group.config.members,
      { ...group.config.members[1]!, realVolume: C, pair: 'suspended' },
    ];
    group.tell({ members: members as typeof group.config.members }, [B, C]);
    expect(group.get(B).durable?.lacksAll).toEqual([C]);
    group.promote(B, false, {}, [B, C]);
    group.pass(5000);
    expect(group.pairOf(C)).toBe('duplex');
    expect(areEqual(group, B, C)).toBe(true);
    expect(group.get(B).durable?.lacksAll).toEqual([]);
  });

  test('I12: who was made primary by force trusts nothing that it knew', () => {
    const group = duplexGroup([A, B, C]);
    group.promote(C, false, { isForced: true });
    expect(group.get(C).persisted.find(({ epoch }) => epoch === 2)?.lacksAll).toEqual([A, B]);
  });

  test('I13: what the primary of before had written alone is copied over, and told', () => {
    const group = duplexGroup([A, B]);
    group.cutOff(B);
    group.write(A, BLOCK, 1, BLOCK * 2);
    group.pass(500);
    group.kill(A);
    group.cut.clear();
    group.promote(B, false);
    group.write(B, 0, 5);
    group.start(A);
    group.tell();
    group.pass(8000);
    expect(group.pairOf(A)).toBe('duplex');
    expect(areEqual(group, A, B)).toBe(true);
    const told = group
      .get(B)
      .effectsOf('told')
      .map(({ what }) => what);
    expect(told).toContainEqual({ kind: 'discarded', member: A, bytes: BLOCK * 2 });
  });

  test('I14: a primary without its cache gives way, and goes on only when nobody else can', () => {
    const group = duplexGroup([A, B]);
    group.write(A, 0, 1);
    group.kill(A);
    group.isDirectoryUp = false;
    const connects = group.get(A).effectsOf('connect').length;
    group.start(A, true);
    const read = group.request(A, { kind: 'read' });
    group.pass(1500);
    expect(group.get(A).effectsOf('give-way').length).toBeGreaterThan(0);
    expect(group.get(A).effectsOf('connect').length).toBe(connects);
    expect(group.answer(read)).toBeUndefined();
    expect(group.pairOf(B)).toBe('duplex');
    group.isDirectoryUp = true; // grants: nobody else can
    group.pass(3000);
    expect(
      group
        .get(A)
        .effectsOf('report')
        .some(({ pair }) => pair === 'suspended'),
    ).toBe(true);
    expect(group.answer(read)).toBe('admitted');
    expect(group.pairOf(B)).toBe('duplex');
    expect(areEqual(group, A, B)).toBe(true);
  });

  test('I14: a secondary without its cache is suspended first, and what was marked is copied', () => {
    const group = duplexGroup([A, B]);
    group.write(A, 0, 1);
    group.kill(A);
    group.kill(B);
    group.get(B).disk.fill(0);
    group.start(B, true);
    group.start(A);
    group.pass(5000);
    expect(
      group
        .get(A)
        .effectsOf('report')
        .some(({ pair }) => pair === 'suspended'),
    ).toBe(true);
    expect(group.pairOf(B)).toBe('duplex');
    expect(areEqual(group, A, B)).toBe(true);
    expect(group.get(B).hasLostCache).toBe(false);
  });

  test('I15: data: a write fails while a wanted member cannot be reached', () => {
    const group = duplexGroup([A, B], {}, { fence: 'data' });
    group.isDirectoryUp = false;
    group.park((input) => input.kind === 'from-primary');
    const underWay = group.write(A, BLOCK, 1);
    group.cutOff(B);
    expect([group.answer(underWay), group.answer(group.write(A, 0, 1))]).toEqual(['io', 'io']);
    expect(group.get(A).bits.get(B)?.has(1)).toBe(true);
    group.isDirectoryUp = true;
    group.unpark();
    group.tell({ members: group.setPair(B, { wanted: 'suspended' }) });
    group.pass(500);
    expect(group.answer(group.write(A, 0, 1))).toBe('done');
  });

  test('I15: status: a write fails when the record cannot be changed in time, also behind another', () => {
    const group = duplexGroup([A, B], {}, { fence: 'status' });
    group.isDirectoryUp = false;
    group.cutOff(B);
    const tokens = [group.write(A, 0, 1), group.write(A, 0, 2)];
    group.pass(4000);
    expect(tokens.map((token) => group.answer(token))).toEqual([undefined, undefined]);
    group.isDirectoryUp = false;
    group.pass(1500);
    // It has no lease either, until the directory is back.
    group.isDirectoryUp = true;
    group.pass(1500);
    expect(tokens.map((token) => group.answer(token))).toEqual(['io', 'io']);
    expect(group.answer(group.write(A, 0, 3))).toBe('done');
  });

  test.each(['data', 'status'] as const)(
    'I15, I6: %s: what fails so is answered when those who follow have acknowledged it, and its payload is the host’s again',
    (fence) => {
      const group = duplexGroup([A, B, C], {}, { fence });
      group.isDirectoryUp = false;
      group.park((input) => input.kind === 'from-primary');
      const token = group.write(A, 0, 1);
      group.cutOff(B);
      expect(group.answer(token)).toBeUndefined();
      group.unpark();
      group.pass(7000);
      group.isDirectoryUp = true;
      group.pass(1500);
      expect(group.answer(token)).toBe('io');
      expect(areEqual(group, A, C)).toBe(true);
    },
  );

  test('I16: a hand-over waits for what is under way, holds what comes later, and leaves nothing unsettled', () => {
    const group = duplexGroup([A, B, C]);
    group.park((input, at) => input.kind === 'from-secondary' && at === A && input.message.kind === 'ack');
    const before = group.write(A, 0, 1);
    group.push(A, { kind: 'hand-over', token: 5, epoch: 2, to: B });
    const later = group.write(A, 0, 2);
    expect(group.get(A).effectsOf('handed-over')).toEqual([]);
    group.unpark();
    expect(group.answer(before)).toBe('done');
    expect(group.get(A).effectsOf('handed-over')).toEqual([
      { kind: 'handed-over', token: 5, isRefused: false },
    ]);
    expect(group.get(A).durable).toMatchObject({ epoch: 2, role: 'secondary', isEqual: true });
    expect(group.answer(later)).toBeUndefined();
    expect([A, B, C].flatMap((id) => group.get(id).unsettled.filter(({ length }) => length === 0))).toEqual(
      [],
    );
    group.promote(B, true);
    expect(group.get(A).hosts).toEqual({ through: B });
    expect(group.answer(later)).toBe('forwarded');
    expect(group.get(B).replica.view()).toMatchObject({ role: 'primary', serving: true });
    expect(group.answer(group.write(B, 0, 3))).toBe('done');
    expect(areEqual(group, A, B, C)).toBe(true);
    expect(
      group
        .get(B)
        .replica.view()
        .pairs.every(({ copiedBytes }) => copiedBytes === 0),
    ).toBe(true);
  });

  test('I16: a hand-over to who is not duplex, or by who is not primary, is refused; requests go on', () => {
    const group = duplexGroup([A, B, C]);
    group.cutOff(C);
    group.pass(500);
    group.push(A, { kind: 'hand-over', token: 5, epoch: 2, to: C });
    group.push(B, { kind: 'hand-over', token: 6, epoch: 2, to: A });
    group.push(A, { kind: 'hand-over', token: 7, epoch: 1, to: B });
    for (const [id, token] of [
      [A, 5],
      [B, 6],
      [A, 7],
    ] as const) {
      expect(group.get(id).effectsOf('handed-over')).toContainEqual({
        kind: 'handed-over',
        token,
        isRefused: true,
      });
    }
    expect(group.answer(group.write(A, 0, 1))).toBe('done');
  });

  test('I16: a hand-over that is taken back: the old primary of a newer epoch serves what it held', () => {
    const group = duplexGroup([A, B]);
    group.push(A, { kind: 'hand-over', token: 5, epoch: 2, to: B });
    const held = group.write(A, 0, 2);
    group.tell({ epoch: 3 as typeof group.config.epoch, isHandedOver: false });
    group.pass(4000);
    expect(group.answer(held)).toBe('done');
    expect(areEqual(group, A, B)).toBe(true);
  });
});
