import { expect, test } from 'vitest';
import { REST_MS } from '../../../src/replication/limits.ts';
import { duplexGroup } from './duplex-group.ts';
import { A, B } from './group.ts';

test('ticks may be put off at a group at rest, less at its primary; not while something is waited for', () => {
  const group = duplexGroup([A, B]);
  const rest = () => [A, B].map((id) => group.get(id).replica.restMs());
  expect(rest()).toEqual([REST_MS.primary, REST_MS.secondary]);
  group.park((input) => input.kind === 'from-secondary' && input.message.kind === 'ack');
  group.write(A, 0, 1);
  expect(rest()[0]).toBe(0); // it may be lost
  group.unpark();
  expect(rest()[0]).toBe(0); // it is settled, and that is not told yet
  group.pass(600); // until a heartbeat has told the secondary, too
  expect(rest()).toEqual([REST_MS.primary, REST_MS.secondary]);
  group.cutOff(B);
  expect(rest()[0]).toBe(0); // it is connected to again
});

test('a group at rest that is ticked only then keeps its lease and its pair without the directory, and finds out that a link is silent', () => {
  const group = duplexGroup([A, B]);
  group.isDirectoryUp = false;
  let lastMs = group.nowMs;
  const passRarely = (ms: number): void => {
    for (let at = 0; at < ms; at += 50) {
      group.nowMs += 50;
      if (group.nowMs - lastMs < group.get(A).replica.restMs()) continue;
      lastMs = group.nowMs;
      group.push(A, { kind: 'tick' });
    }
  };
  for (let n = 0; n < 20; n++) {
    passRarely(1_000);
    expect(group.get(A).replica.servesNow(group.nowMs)).toBe(true);
  }
  expect(group.pairOf(B)).toBe('duplex');
  group.isDirectoryUp = true;
  group.lose((input) => input.kind === 'from-secondary');
  passRarely(3_000);
  const reports = group
    .get(A)
    .effectsOf('report')
    .map(({ pair }) => pair);
  expect(reports).toContain('suspended');
});
