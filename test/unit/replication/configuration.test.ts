import { describe, expect, test } from 'vitest';
import { areEqual, duplexGroup } from './duplex-group.ts';
import { A, B, C, type TestGroup } from './group.ts';
import { BLOCK, SIZE } from './member.ts';

const FIRST = { offset: 0, length: BLOCK };

describe('configuration', () => {
  test('older revisions are nothing; removed members are forgotten; a group of one serves', () => {
    const group = duplexGroup([A, B]);
    group.push(A, { kind: 'configure', token: 7, config: { ...group.config, revision: 1 } });
    expect(group.get(A).effectsOf('configured').at(-1)).toMatchObject({ token: 7, isRefused: false });
    group.isDirectoryUp = false;
    group.cutOff(B);
    const token = group.write(A, 0, 1);
    expect(group.answer(token)).toBeUndefined();
    group.tell({ members: group.config.members.filter(({ realVolume }) => realVolume !== B) }, [A]);
    expect(group.answer(token)).toBe('done');
    expect(group.get(A).durable).toMatchObject({ mayBeInStep: [], lacksAll: [] });
    expect(group.get(A).bits.size).toBe(0);
    expect(group.get(A).replica.view().pairs).toEqual([]);
  });

  test('a newer epoch is news whatever its revision: an older catalog counts anew', () => {
    const group = duplexGroup([A, B]);
    group.isDirectoryUp = false;
    group.cutOff(B);
    const { epoch } = group.config;
    const config = { ...group.config, epoch: (epoch + 1) as typeof epoch, revision: 1 };
    group.push(A, { kind: 'configure', token: 7, config });
    expect(group.get(A).durable).toMatchObject({
      role: 'primary',
      epoch: epoch + 1,
      config: { revision: 1 },
    });
    group.push(A, { kind: 'configure', token: 8, config: { ...config, fence: 'data', revision: 2 } });
    expect(group.get(A).durable?.config).toMatchObject({ fence: 'data', revision: 2 });
  });

  test('also for who has heard of that epoch, and not been told of it', () => {
    const group = duplexGroup([A, B]);
    // The directory says that another is primary, and has not heard of this: an older catalog.
    group.config = { ...group.config, epoch: 7 as typeof group.config.epoch };
    group.pass(3000);
    expect(group.get(A).durable).toMatchObject({ epoch: 2, role: 'secondary' });
    group.config = { ...group.config, revision: 0 };
    group.tell({ epoch: 2 as typeof group.config.epoch, isHandedOver: true });
    expect(group.get(A).replica.view()).toMatchObject({ role: 'primary', epoch: 2, revision: 1 });
  });

  test('a member that a person has suspended is left, and copied to again when it is wanted', () => {
    const group = duplexGroup([A, B]);
    group.tell({ members: group.setPair(B, { wanted: 'suspended' }) });
    expect(group.get(A).effectsOf('report').at(-1)).toMatchObject({ pair: 'suspended', reason: 'asked' });
    group.pass(3000);
    expect(group.pairOf(B)).toBe('suspended');
    group.write(A, 0, 1);
    expect(group.get(A).replica.view().pairs).toEqual([
      { realVolume: B, state: 'suspended', outOfSyncBytes: BLOCK, copiedBytes: 0 },
    ]);
    group.tell({ members: group.setPair(B, { wanted: 'following' }) });
    group.pass(500);
    expect(group.pairOf(B)).toBe('duplex');
    expect(areEqual(group, A, B)).toBe(true);
  });

  test('a report that was given up and is recorded later is set right', () => {
    const group = duplexGroup([A, B]);
    group.tell({ members: group.setPair(B, { pair: 'suspended' }) });
    group.pass(300);
    expect(group.pairOf(B)).toBe('duplex');
  });

  test('an older record that calls a member duplex, and has come to be newer by its revision, is set right', () => {
    const group = duplexGroup([A, B]);
    const { members } = group.config;
    group.cutOff(B);
    group.write(A, 0, 1);
    group.pass(500);
    expect(group.pairOf(B)).toBe('suspended');
    group.tell({ members });
    expect(group.pairOf(B)).toBe('suspended');
  });

  test('what an earlier life reported arrives before anybody is connected: it is set right when they are', () => {
    const group = duplexGroup([A, B]);
    group.tell();
    group.kill(A);
    group.park(({ kind }) => kind === 'link-up');
    group.start(A);
    group.tell({ members: group.setPair(B, { pair: 'suspended' }) }, [A]);
    group.unpark();
    group.pass(300);
    expect(group.get(A).replica.view().pairs).toMatchObject([{ realVolume: B, state: 'duplex' }]);
    expect(group.pairOf(B)).toBe('duplex');
  });

  test('a pair that joins is reported, whatever an old record said of it', () => {
    const group = duplexGroup([A, B]);
    group.cutOff(B);
    group.write(A, 0, 1);
    group.pass(500);
    expect(group.pairOf(B)).toBe('suspended');
    // A was told when it was duplex, and begins again.
    group.kill(A);
    const { durable } = group.get(A);
    const members = durable!.config.members.map((member) => ({ ...member, pair: 'duplex' as const }));
    group.get(A).durable = { ...durable!, config: { ...durable!.config, members } };
    group.cut.clear();
    group.isDirectoryUp = false;
    group.start(A);
    group.pass(1000);
    expect(group.get(A).replica.view().pairs).toMatchObject([{ state: 'joining' }]);
    group.isDirectoryUp = true;
    group.pass(1000);
    expect(group.get(A).replica.view().pairs).toMatchObject([{ state: 'duplex' }]);
    expect(group.pairOf(B)).toBe('duplex');
  });

  test('what the record says while a report is on its way counts when that has been answered', () => {
    const group = duplexGroup([A, B]);
    group.park(({ kind }) => kind === 'reported');
    group.tell({ members: group.setPair(B, { pair: 'suspended' }) }, [A]);
    expect(group.pairOf(B)).toBe('duplex');
    group.tell({ members: group.setPair(B, { pair: 'suspended' }) }, [A]);
    group.unpark();
    group.pass(300);
    expect(group.pairOf(B)).toBe('duplex');
  });

  test('the rate of copying is kept', () => {
    const group = duplexGroup([A, B], {}, { copyBytesPerSecond: 1024 * 1024 });
    group.cutOff(B);
    group.write(A, 0, 1, 4 * 1024 * 1024);
    group.pass(500);
    group.cut.clear();
    group.pass(2000);
    const { copiedBytes } = group.get(A).replica.view().pairs[0]!;
    expect(copiedBytes).toBeGreaterThan(512 * 1024);
    expect(copiedBytes).toBeLessThan(3 * 1024 * 1024);
    group.pass(5000);
    expect(areEqual(group, A, B)).toBe(true);
  });
});

describe('nonsense of a peer ends the session', () => {
  const write = { kind: 'write', ...FIRST, fua: false, payload: Buffer.alloc(BLOCK) } as const;
  const last = (group: TestGroup): number => group.get(B).effectsOf('welcome').at(-1)!.session;

  test.each([
    ['a number that does not follow', { ...write, seq: 99, confirmed: 0 }],
    ['a range outside of the volume', { ...write, offset: SIZE, seq: 0, confirmed: 0 }],
    ['confirmed before it was acknowledged', { kind: 'heartbeat', token: 1, confirmed: 999 }],
  ] as const)('of a primary: %s', (_, message) => {
    const group = duplexGroup([A, B]);
    const seq =
      group
        .get(B)
        .effectsOf('reply')
        .filter(({ message: { kind } }) => kind === 'ack').length + 1;
    const session = last(group);
    const isNext = 'seq' in message && message.seq === 0;
    group.push(B, { kind: 'from-primary', session, message: isNext ? { ...message, seq } : message });
    expect(group.get(B).effectsOf('end-session')).toEqual([{ kind: 'end-session', session }]);
    group.pass(3000);
    expect(group.pairOf(B)).toBe('duplex');
  });

  test.each([
    ['an acknowledgement of nothing', { kind: 'ack', seq: 999, result: 'done' }],
    ['a heartbeat that was not sent', { kind: 'heartbeat-ack', token: 999_999, received: 0 }],
    ['operations that were not sent', { kind: 'heartbeat-ack', token: 0, received: 999 }],
  ] as const)('of a secondary: %s', (_, message) => {
    const group = duplexGroup([A, B]);
    const { session } = group.get(A).effectsOf('connect').at(-1)!;
    group.lose((input) => input.kind === 'from-secondary' && input.message.kind === 'heartbeat-ack');
    group.pass(1000);
    group.lose(undefined);
    const sent = group
      .get(A)
      .effectsOf('send')
      .flatMap(({ message: of }) => (of.kind === 'heartbeat' ? [of.token] : []));
    const isOld = message.kind === 'heartbeat-ack' && message.token === 0;
    const token = sent.at(-2) as number;
    group.push(A, {
      kind: 'from-secondary',
      from: B,
      session,
      message: isOld ? { ...message, token } : message,
    });
    expect(group.get(A).effectsOf('disconnect').at(-1)).toEqual({ kind: 'disconnect', to: B, session });
    expect(group.get(A).effectsOf('report').at(-1)).toMatchObject({ pair: 'suspended', reason: 'failed' });
    group.pass(3000);
    expect(group.pairOf(B)).toBe('duplex');
  });

  test.each([
    ['stale-epoch', { source: A, epoch: 0, sizeBytes: SIZE }],
    ['unknown', { source: C, epoch: 1, sizeBytes: SIZE }],
    ['size', { source: A, epoch: 1, sizeBytes: SIZE + BLOCK }],
    ['policy', { source: A, epoch: Number.MAX_SAFE_INTEGER, sizeBytes: SIZE }],
    ['busy', { source: C, epoch: 2, sizeBytes: SIZE }],
  ] as const)('a hello is refused: %s', (code, hello) => {
    const group = duplexGroup([A, B]);
    group.push(B, { kind: 'hello', session: 77, ...hello });
    expect(group.get(B).effectsOf('refuse')).toEqual([{ kind: 'refuse', session: 77, code, epoch: 1 }]);
  });

  test('an epoch that cannot be is nothing that a primary gives way to', () => {
    const group = duplexGroup([A, B]);
    const { session } = group.get(A).effectsOf('connect').at(-1)!;
    const message = { kind: 'fenced', epoch: Number.MAX_SAFE_INTEGER } as const;
    group.push(A, { kind: 'from-secondary', from: B, session, message });
    group.pass(3000);
    expect(group.get(A).replica.view()).toMatchObject({ role: 'primary', epoch: 1 });
    expect(group.pairOf(B)).toBe('duplex');
  });

  test('a hello to who has not been configured, or is primary of that epoch, is refused', () => {
    const group = duplexGroup([A, B]);
    group.newMember(C);
    group.push(C, { kind: 'hello', session: 1, source: A, epoch: 1, sizeBytes: SIZE });
    group.push(A, { kind: 'hello', session: 1, source: B, epoch: 1, sizeBytes: SIZE });
    expect([...group.get(C).effectsOf('refuse'), ...group.get(A).effectsOf('refuse')]).toMatchObject([
      { code: 'unknown', epoch: 0 },
      { code: 'unknown', epoch: 1 },
    ]);
  });

  test('our own mistakes are loud', () => {
    const group = duplexGroup([A, B]);
    const { replica } = group.get(A);
    const nowMs = group.nowMs;
    expect(() => replica.step({ kind: 'applied', nowMs, token: 424_242, error: undefined })).toThrow(
      'assertion',
    );
    expect(() => replica.step({ kind: 'marked', nowMs, token: 424_242 })).toThrow('assertion');
    expect(() => replica.step({ kind: 'tick', nowMs: nowMs - 1 })).toThrow('assertion');
  });
});
