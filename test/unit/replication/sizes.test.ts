import { describe, expect, test } from 'vitest';
import { EXTENT_BYTES } from '../../../src/model/copy-granularity.ts';
import { areEqual, duplexGroup } from './duplex-group.ts';
import { A, B, TestGroup } from './group.ts';
import { BLOCK, SIZE } from './member.ts';

const CUT = SIZE - EXTENT_BYTES;
const LAST_EXTENT = CUT / EXTENT_BYTES;

/** Cut, and as large again. */
function cutAndGrow(group: TestGroup, ids: readonly string[]): void {
  for (const id of ids) group.resize(id, CUT);
  for (const id of [...ids].reverse()) group.resize(id, SIZE);
}

/** Ways in which the last extent is still held when it is cut off. */
const HELD: readonly (readonly [how: string, act: (group: TestGroup) => void])[] = [
  [
    'work that waits for an acknowledgement',
    (group) => {
      group.park(({ kind }) => kind === 'from-secondary');
      group.write(A, CUT, 1);
      cutAndGrow(group, [A, B]);
      group.unpark();
    },
  ],
  [
    'work of a session that is over',
    (group) => {
      group.write(A, CUT, 1);
      group.resize(A, CUT);
      group.kill(A);
      cutAndGrow(group, [B]);
      group.start(A);
      group.resize(A, SIZE);
    },
  ],
  [
    'what a start has told as unsettled',
    (group) => {
      group.write(A, CUT, 1);
      group.resize(A, CUT);
      group.kill(A);
      group.kill(B);
      group.start(B);
      cutAndGrow(group, [B]);
      group.start(A);
      group.resize(A, SIZE);
    },
  ],
  [
    'a mark that is on its way',
    (group) => {
      group.park(({ kind }) => kind === 'marked');
      group.write(A, CUT, 1);
      cutAndGrow(group, [A, B]);
      group.unpark();
    },
  ],
];

describe('sizes', () => {
  test.each(HELD)('an extent that is cut off and comes again is marked again: %s', (_how, act) => {
    const group = duplexGroup([A, B]);
    act(group);
    group.pass(1000);
    const token = group.write(A, CUT + BLOCK, 2);
    group.pass(1000);
    expect(group.answer(token)).toBe('done');
    for (const id of [A, B]) expect(group.get(id).marked.has(LAST_EXTENT), id).toBe(true);
    expect(areEqual(group, A, B)).toBe(true);
  });

  test('what was sent for behind the end does not arrive when it is there again', () => {
    const group = duplexGroup([A, B]);
    group.park(({ kind }, member) => kind === 'from-primary' && member === B);
    group.write(A, CUT, 1);
    cutAndGrow(group, [A, B]);
    // As the file system does.
    group.get(A).disk.fill(0, CUT);
    group.unpark();
    group.pass(3000);
    expect(group.pairOf(B)).toBe('duplex');
    expect(areEqual(group, A, B)).toBe(true);
  });

  test('what waited for its range when the volume was cut is sent to nobody', () => {
    const group = duplexGroup([A, B]);
    group.park(({ kind }, member) => kind === 'applied' && member === A);
    group.write(A, CUT - BLOCK, 1);
    const token = group.write(A, CUT - BLOCK, 2, 2 * BLOCK);
    group.get(A).failApply = ({ kind }) => (kind === 'flush' ? undefined : 'invalid');
    for (const id of [A, B]) group.resize(id, CUT);
    group.resize(B, SIZE);
    group.pass(1000);
    group.unpark();
    group.pass(1000);
    expect(group.answer(token)).toBe('invalid');
    group.get(A).failApply = undefined;
    group.resize(A, SIZE);
    group.pass(1000);
    expect(group.pairOf(B)).toBe('duplex');
    expect(areEqual(group, A, B)).toBe(true);
  });

  test('what a member lacks follows the size of the file, and no config that comes late', () => {
    const group = new TestGroup([A, B]);
    group.cutOff(B);
    group.tell();
    const outOfSyncBytes = (): number | undefined => group.get(A).replica.view().pairs[0]?.outOfSyncBytes;
    expect(outOfSyncBytes()).toBe(SIZE);
    group.resize(A, CUT);
    group.tell();
    expect(group.config.sizeBytes).toBe(SIZE);
    expect(outOfSyncBytes()).toBe(CUT);
  });
});
