import { expect, test } from 'vitest';
import { IoGate } from '../../../src/gateway/io-gate.ts';
import { VolumeError } from '../../../src/model/errors.ts';

type Reason = 'shrinking' | 'moving';

/** What a promise has come to, once all that is ready has run. */
async function stateOf(promise: Promise<unknown>): Promise<string> {
  return Promise.race([
    promise.then(
      () => 'done',
      (error: unknown) => (error instanceof VolumeError ? error.code : String(error)),
    ),
    new Promise<string>((resolve) => setImmediate(() => resolve('waiting'))),
  ]);
}

test('1: a request waits while there is any reason', async () => {
  const gate = new IoGate<Reason>();
  expect(gate.isOpen).toBe(true);
  await gate.hold('shrinking');
  await gate.hold('moving');
  expect(gate.isOpen).toBe(false);
  const request = gate.passage();
  gate.release('shrinking');
  expect([await stateOf(request), gate.held, gate.reasons]).toEqual(['waiting', 1, ['moving']]);
  gate.release('moving');
  expect([await stateOf(request), gate.held, gate.isOpen]).toEqual(['done', 0, true]);
});

test('2: hold ends when the last request that had passed has left', async () => {
  const gate = new IoGate<Reason>();
  gate.entered();
  gate.entered();
  const idle = gate.hold('moving');
  gate.left();
  expect(await stateOf(idle)).toBe('waiting');
  gate.left();
  expect(await stateOf(idle)).toBe('done');
});

test('2: a request that is let through counts from that moment, for a hold in the same turn', async () => {
  const gate = new IoGate<Reason>();
  await gate.hold('moving');
  const request = gate.passage();
  gate.release('moving');
  const idle = gate.hold('moving');
  await request;
  expect(await stateOf(idle)).toBe('waiting');
  gate.left();
  expect(await stateOf(idle)).toBe('done');
});

test('3: held requests pass in their order, and not more than the bound are held', async () => {
  const gate = new IoGate<Reason>(3);
  await gate.hold('moving');
  const order: number[] = [];
  const requests = [1, 2, 3].map((number) => gate.passage().then(() => order.push(number)));
  expect(await stateOf(gate.passage())).toBe('io');
  gate.release('moving');
  await Promise.all(requests);
  expect(order).toEqual([1, 2, 3]);
  expect(gate.underWay).toBe(3);
});

test('a gate that is closed refuses what it holds and what comes', async () => {
  const gate = new IoGate<Reason>();
  await gate.hold('moving');
  const request = gate.passage();
  gate.close(new VolumeError('shutdown', 'closing'));
  expect(await stateOf(request)).toBe('shutdown');
  expect(await stateOf(gate.passage())).toBe('shutdown');
  gate.release('moving');
  expect(gate.isOpen).toBe(false);
});

test('a reason is given and taken back once', () => {
  const gate = new IoGate<Reason>();
  expect(() => gate.release('moving')).toThrow('assertion failed');
  void gate.hold('moving');
  expect(() => gate.hold('moving')).toThrow('assertion failed');
  expect(() => gate.left()).toThrow('assertion failed');
});
