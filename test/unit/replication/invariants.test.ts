import { describe, expect, test } from 'vitest';
import { areEqual, duplexGroup } from './duplex-group.ts';
import { A, B, C, TestGroup } from './group.ts';
import { BLOCK, configOf } from './member.ts';

const FIRST = { offset: 0, length: BLOCK };

/** Messages that an engine has sent to a member. */
function sent(group: TestGroup, from: string, to: string, kind: string): Record<string, unknown>[] {
  return group
    .get(from)
    .effectsOf('send')
    .filter((effect) => effect.to === to && effect.message.kind === kind)
    .map(({ message }) => ({ ...message }));
}

describe('writes', () => {
  test('I1: a write that overlaps one that is under way is not begun before that is settled', () => {
    const group = duplexGroup([A, B]);
    group.park((input) => input.kind === 'from-secondary' && input.message.kind === 'ack');
    const [first, second, other] = [
      group.write(A, 0, 1),
      group.write(A, 1024, 2),
      group.write(A, BLOCK * 2, 3),
    ];
    expect(sent(group, A, B, 'write').map(({ offset }) => offset)).toEqual([0, BLOCK * 2]);
    group.unpark();
    expect([first, second, other].map((token) => group.answer(token))).toEqual(['done', 'done', 'done']);
    expect(areEqual(group, A, B)).toBe(true);
  });

  test('I2: a write is answered when every member has acknowledged it', () => {
    const group = duplexGroup([A, B, C]);
    group.park((input, at) => input.kind === 'from-secondary' && at === A && input.from === C);
    const token = group.write(A, 0, 1);
    expect(group.answer(token)).toBeUndefined();
    group.unpark();
    expect(group.answer(token)).toBe('done');
  });

  test('I2: without a member it is answered when the record says suspended, and not before', () => {
    const group = duplexGroup([A, B]);
    group.isDirectoryUp = false;
    group.cutOff(B);
    const token = group.write(A, 0, 1);
    group.pass(2000);
    expect(group.answer(token)).toBeUndefined();
    group.isDirectoryUp = true;
    group.pass(500);
    expect(group.pairOf(B)).toBe('suspended');
    expect(group.answer(token)).toBe('done');
  });

  test('flushes go to every member, zeroes and trims as such', () => {
    const group = duplexGroup([A, B]);
    group.write(A, 0, 1, BLOCK * 4);
    const answers = [
      group.request(A, { kind: 'flush' }),
      group.request(A, { kind: 'zero', ...FIRST, fua: true, noHole: true }),
      group.request(A, { kind: 'trim', offset: BLOCK, length: BLOCK, fua: false }),
    ].map((token) => group.answer(token));
    expect(answers).toEqual(['done', 'done', 'done']);
    const kinds = ['flush', 'zero', 'trim'].map((kind) => sent(group, A, B, kind).at(-1));
    expect(kinds).toMatchObject([{}, { ...FIRST, fua: true, noHole: true }, { fua: false }]);
    expect(areEqual(group, A, B)).toBe(true);
  });

  test('a write waits until its extent is marked; the next there does not', () => {
    const group = duplexGroup([A, B], {}, {});
    const offset = 8 * 1024 * 1024;
    group.park((input, at) => input.kind === 'marked' && at === A);
    const token = group.write(A, offset, 1);
    expect(sent(group, A, B, 'write')).toEqual([]);
    group.unpark();
    expect(group.answer(token)).toBe('done');
    const marks = group.get(A).effectsOf('mark').length;
    expect(group.answer(group.write(A, offset, 2))).toBe('done');
    expect(group.get(A).effectsOf('mark').length).toBe(marks);
  });

  test('an extent in which nothing happens any more is unmarked, on both sides', () => {
    const group = duplexGroup([A, B], { idleMs: 2000 });
    group.write(A, 0, 1);
    expect(group.get(A).marked.has(0) && group.get(B).marked.has(0)).toBe(true);
    group.pass(5000);
    expect(group.get(A).marked.size + group.get(B).marked.size).toBe(0);
  });

  test('a write that fails here is answered so, and the members become equal again', () => {
    const group = duplexGroup([A, B]);
    group.write(A, 0, 1);
    group.get(A).failApply = (operation) => (operation.kind === 'write' ? 'no-space' : undefined);
    expect(group.answer(group.write(A, 0, 2))).toBe('no-space');
    group.pass(500);
    expect(group.pairOf(B)).toBe('duplex');
    expect(areEqual(group, A, B)).toBe(true);
    expect(group.get(A).disk[0]).toBe(1);
  });

  test('I6: what has failed here stays unsettled at who may be promoted, until it holds what is here', () => {
    const group = duplexGroup([A, B]);
    group.write(A, 0, 1);
    // The record calls C duplex, and A has not heard of it yet: nothing is copied to it meanwhile.
    group.newMember(C);
    let answers = 0;
    group.park(({ kind }) => kind === 'reported' && ++answers === 2);
    group.tell({ members: [...group.config.members, ...configOf([C], A).members] });
    group.tell({ members: group.setPair(C, { pair: 'suspended' }) });
    group.pass(1000);
    expect(
      group
        .get(A)
        .replica.view()
        .pairs.map(({ state }) => state),
    ).toEqual(['duplex', 'joining']);
    group.get(A).failApply = (operation) => (operation.kind === 'write' ? 'no-space' : undefined);
    expect(group.answer(group.write(A, 0, 2))).toBe('no-space');
    group.pass(1500);
    expect([B, C].map((id) => group.get(id).disk[0])).toEqual([1, 2]);
    group.kill(A);
    group.unpark();
    group.promote(C, false);
    group.pass(5000);
    expect(group.pairOf(B)).toBe('duplex');
    expect(areEqual(group, B, C)).toBe(true);
  });

  test('a secondary that takes the connection and fails each write, as its disk is full, is tried ever more rarely', () => {
    const group = duplexGroup([A, B]);
    group.get(B).failApply = (operation) => (operation.kind === 'flush' ? undefined : 'no-space');
    group.write(A, 0, 1);
    group.pass(10_000);
    const tried = () => group.get(A).effectsOf('connect').length;
    const before = tried();
    group.pass(30_000);
    expect(tried() - before).toBeLessThanOrEqual(11); // every 3 s
    group.get(B).failApply = undefined;
    group.pass(5000);
    expect(group.pairOf(B)).toBe('duplex');
    expect(areEqual(group, A, B)).toBe(true);
  });

  test.each(['status', 'data'] as const)(
    'I15: with fence %s a write fails in seconds also when directory and secondary are both away, and no lease holds',
    (fence) => {
      const group = duplexGroup([A, B]);
      group.tell({ fence });
      group.isDirectoryUp = false;
      group.pass(5000);
      group.cutOff(B);
      const first = group.write(A, 0, 1);
      group.pass(8000);
      const later = group.write(A, BLOCK, 1);
      group.pass(100);
      expect([first, later].map((token) => group.answer(token))).toEqual(['io', 'io']);
    },
  );

  test('a write that fails at a secondary is answered when that is recorded as suspended', () => {
    const group = duplexGroup([A, B]);
    group.get(B).failApply = (operation) => (operation.kind === 'write' ? 'io' : undefined);
    group.park((input) => input.kind === 'reported');
    const token = group.write(A, 0, 2);
    expect(group.answer(token)).toBeUndefined();
    expect(group.get(A).effectsOf('report').at(-1)).toMatchObject({ pair: 'suspended', reason: 'failed' });
    group.unpark();
    expect(group.answer(token)).toBe('done');
    expect(group.get(A).lacks(B)).toBe(1);
  });
});

describe('what is durable', () => {
  test('I3: that a member may be in step is durable before the record is asked to say duplex', () => {
    const group = new TestGroup([A, B]);
    group.run();
    group.park((input) => input.kind === 'reported');
    group.tell();
    group.pass(500);
    group.unpark();
    group.park((input) => input.kind === 'reported');
    group.pass(500);
    const asked = group
      .get(A)
      .effectsOf('report')
      .filter(({ pair }) => pair === 'duplex');
    expect(asked.length).toBe(1);
    expect(group.get(A).durable?.mayBeInStep).toEqual([B]);
    group.kill(A);
    group.start(A);
    expect(group.answer(group.write(A, 0, 1))).toBe('done');
    group.unpark();
  });

  test('I3, I17: a primary that starts again does not go on without a member that the record may promote', () => {
    const group = duplexGroup([A, B]);
    group.kill(A);
    group.cutOff(B);
    group.isDirectoryUp = false;
    group.start(A);
    const [write, read] = [group.write(A, 0, 1), group.request(A, { kind: 'read' })];
    group.pass(4000);
    expect([group.answer(write), group.answer(read)]).toEqual([undefined, undefined]);
    group.isDirectoryUp = true;
    group.pass(1500);
    expect([group.answer(write), group.answer(read)]).toEqual(['done', 'admitted']);
    expect(group.pairOf(B)).toBe('suspended');
  });

  test('I4: the others know what a member lacks before the write is answered', () => {
    const group = duplexGroup([A, B, C]);
    group.write(A, 0, 1);
    group.cutOff(C);
    group.park((input, at) => input.kind === 'from-secondary' && at === A && input.message.kind === 'ack');
    const token = group.write(A, BLOCK, 2);
    group.pass(300);
    expect(group.pairOf(C)).toBe('suspended');
    expect(group.answer(token)).toBeUndefined();
    group.unpark();
    expect(group.answer(token)).toBe('done');
    expect(group.get(B).lacks(C)).toBeGreaterThan(0);
    group.write(A, BLOCK * 9, 2);
    expect(group.get(B).bits.get(C)?.has(9)).toBe(true);
    expect(group.get(A).bits.get(C)?.has(9)).toBe(true);
  });

  test('I5: a bit is cleared durably only after the member has flushed', () => {
    const group = duplexGroup([A, B]);
    group.cutOff(B);
    group.write(A, 0, 1);
    group.pass(300);
    group.cut.clear();
    group.park((input, at) => input.kind === 'applied' && at === B && group.get(B).disk[0] === 1);
    group.pass(1000);
    expect(group.get(A).lacks(B)).toBe(1);
    group.unpark();
    group.pass(500);
    expect(group.get(A).lacks(B)).toBe(0);
    expect(group.pairOf(B)).toBe('duplex');
  });

  test('I6: what reached one member and not the other when the primary died is found, without a full copy', () => {
    const group = duplexGroup([A, B, C]);
    group.write(A, 0, 1, BLOCK * 100);
    group.pass(600); // told that this is settled
    group.lose((input, at) => input.kind === 'from-primary' && at === C && input.message.kind === 'write');
    group.write(A, 0, 2);
    group.lose(undefined);
    group.kill(A);
    expect(areEqual(group, B, C)).toBe(false);
    group.promote(C, false);
    group.pass(4000);
    expect(areEqual(group, B, C)).toBe(true);
    expect(
      group
        .get(C)
        .replica.view()
        .pairs.find(({ realVolume }) => realVolume === B)?.copiedBytes,
    ).toBe(BLOCK);
    group.start(A);
    group.tell();
    group.pass(4000);
    expect(areEqual(group, A, B, C)).toBe(true);
    expect(group.pairOf(A)).toBe('duplex');
  });

  test('I7: who becomes equal knows what the others lack, and follows them by difference as primary', () => {
    const group = duplexGroup([A, B, C]);
    group.cutOff(C);
    group.write(A, BLOCK * 3, 1);
    group.pass(500);
    group.kill(B);
    group.write(A, BLOCK * 5, 1);
    group.pass(500);
    group.start(B);
    group.pass(4000);
    expect(group.pairOf(B)).toBe('duplex');
    expect([...(group.get(B).bits.get(C) ?? [])].sort()).toEqual([3, 5]);
    group.kill(A);
    group.promote(B, false);
    group.cut.clear();
    group.pass(8000);
    expect(group.pairOf(C)).toBe('duplex');
    expect(areEqual(group, B, C)).toBe(true);
  });

  test('I7: who is told of a new member while it becomes equal does not take it for one that lacks nothing', () => {
    const group = new TestGroup([A, B]);
    group.run();
    group.park((input, member) => {
      const isNews = input.kind === 'from-primary' && input.message.kind === 'members';
      const isOfC = isNews && input.message.kind === 'members' && input.message.differing.includes(C);
      return member === B && (input.kind === 'unmarked' || isOfC);
    });
    group.tell();
    group.newMember(C);
    group.cutOff(C);
    group.tell({ members: [...group.config.members, ...configOf([C], A).members] });
    group.pass(200);
    expect(group.parked.map(({ kind }) => kind)).toEqual(['unmarked', 'from-primary']);
    group.unpark();
    group.pass(1000);
    expect(group.get(B).durable).toMatchObject({ isEqual: true, lacksAll: [C] });
  });

  test('I7: nobody is zeroed while one that may be promoted has not heard of it', () => {
    const group = duplexGroup([A, B]);
    group.write(A, 0, 1);
    group.newMember(C);
    group.cutOff(C);
    group.tell({ members: [...group.config.members, ...configOf([C], A).members] });
    group.kill(A);
    group.cutOff(B);
    group.cut.delete(C);
    group.start(A);
    group.pass(500);
    const zeroes = () =>
      group
        .get(A)
        .effectsOf('send')
        .filter(({ to, message }) => to === C && message.kind === 'zero').length;
    expect(
      group
        .get(A)
        .replica.view()
        .pairs.map(({ state }) => state),
    ).toEqual(['connecting', 'copying']);
    expect(zeroes()).toBe(0);
    group.pass(5000);
    expect(zeroes()).toBe(1);
    expect([B, C].map((id) => group.pairOf(id))).toEqual(['suspended', 'duplex']);
    expect(areEqual(group, A, C)).toBe(true);
  });

  test('I8: a secondary keeps what is unsettled until it is called equal', () => {
    const group = duplexGroup([A, B]);
    group.park((input, at) => input.kind === 'from-secondary' && at === A);
    group.write(A, 0, 1);
    group.kill(A);
    expect(group.get(B).unsettled).toEqual([FIRST]);
    group.kill(B);
    group.start(B);
    expect(group.get(B).unsettled).toEqual([FIRST]);
    group.unpark();
    group.start(A);
    group.pass(1000);
    expect(group.get(B).unsettled).toEqual([]);
    expect(areEqual(group, A, B)).toBe(true);
  });
});

describe('sessions, epochs, leases', () => {
  test('I9: a hello is welcomed only when nothing of an earlier session is being applied', () => {
    const group = duplexGroup([A, B]);
    group.park((input, at) => input.kind === 'applied' && at === B);
    group.write(A, 0, 1);
    const welcomes = group.get(B).effectsOf('welcome').length;
    group.cutOff(B);
    group.cut.clear();
    group.pass(1000);
    expect(group.get(B).effectsOf('welcome').length).toBe(welcomes);
    group.unpark();
    group.pass(1000);
    expect(group.get(B).effectsOf('welcome').length).toBe(welcomes + 1);
    expect(group.pairOf(B)).toBe('duplex');
  });

  test('I10: what carries an older epoch is refused; who hears of a newer one looks no further', () => {
    const group = duplexGroup([A, B]);
    group.promote(B, false, {}, [B]);
    expect(group.get(B).durable?.epoch).toBe(2);
    const token = group.write(A, 0, 1);
    group.pass(200);
    expect(group.answer(token)).toBe('shutdown');
    expect(group.get(A).hosts).toBe('refuse');
    expect(group.get(A).durable).toMatchObject({ epoch: 2, role: 'secondary', mayBeInStep: [] });
    group.kill(A);
    group.start(A);
    expect(group.get(A).hosts).toBe('refuse');
    expect(group.answer(group.request(A, { kind: 'read' }))).toBe('shutdown');
    group.push(A, { kind: 'configure', token: 7, config: configOf([A, B], A) });
    expect(group.get(A).effectsOf('configured').at(-1)).toEqual({
      ...{ kind: 'configured', token: 7, epoch: 2, isRefused: true },
    });
  });

  test('I11: without its lease a primary serves no reads and answers nothing; any answer gives it back', () => {
    const group = duplexGroup([A, B]);
    group.isDirectoryUp = false;
    group.pass(4000);
    expect(group.get(A).replica.servesNow(group.nowMs)).toBe(true); // B grants
    group.park((input) => input.kind === 'from-secondary' && input.message.kind === 'heartbeat-ack');
    group.nowMs += 3500; // as if stopped for so long
    expect(group.get(A).replica.servesNow(group.nowMs)).toBe(false);
    const [read, write] = [group.request(A, { kind: 'read' }), group.write(A, 0, 1)];
    expect([group.answer(read), group.answer(write)]).toEqual([undefined, undefined]);
    group.pass(600);
    group.unpark();
    expect([group.answer(read), group.answer(write)]).toEqual(['admitted', 'done']);
  });

  test('I11: a primary that was stopped does not take its members for lost', () => {
    const group = duplexGroup([A, B]);
    group.nowMs += 60_000;
    group.pass(300);
    expect(group.pairOf(B)).toBe('duplex');
    expect(
      group
        .get(A)
        .effectsOf('report')
        .every(({ pair }) => pair !== 'suspended'),
    ).toBe(true);
  });

  test('I11: a failover waits for the lease of before, once; a hand-over does not', () => {
    const group = duplexGroup([A, B]);
    group.kill(A);
    group.promote(B, false);
    const read = group.request(B, { kind: 'read' });
    group.pass(3200);
    expect(group.answer(read)).toBeUndefined();
    group.pass(200);
    expect(group.answer(read)).toBe('admitted');
    group.kill(B);
    group.start(B);
    group.pass(200);
    expect(group.answer(group.request(B, { kind: 'read' }))).toBe('admitted');
  });
});
