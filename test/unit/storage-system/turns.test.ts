import { expect, test } from 'vitest';
import { Turns } from '../../../src/storage-system/turns.ts';

/** An operation that ends when it is told to. */
function held(): { operation: () => Promise<string>; end: () => void; hasBegun: () => boolean } {
  let begun = false;
  const { promise, resolve } = Promise.withResolvers<string>();
  return {
    operation: () => {
      begun = true;
      return promise;
    },
    end: () => resolve('ended'),
    hasBegun: () => begun,
  };
}

const turnOfTheLoop = () => new Promise((resolve) => setImmediate(resolve));

test('those of one key take turns, in order; one that fails lets the next one go on; other keys do not wait', async () => {
  const turns = new Turns();
  const [first, second] = [held(), held()];
  const order: string[] = [];
  const one = turns.run('a', async () => {
    await first.operation();
    order.push('one');
  });
  const failing = turns.run('a', async () => {
    order.push('failing');
    throw new Error('no');
  });
  const two = turns.run('a', second.operation).then(() => order.push('two'));
  expect(await turns.run('b', async () => 'b')).toBe('b');
  expect(second.hasBegun()).toBe(false);
  first.end();
  await expect(failing).rejects.toThrow('no');
  await turnOfTheLoop();
  expect(second.hasBegun()).toBe(true);
  second.end();
  await Promise.all([one, two]);
  expect(order).toEqual(['one', 'failing', 'two']);
});

test('busy until what is under way has ended; all done when nothing is', async () => {
  const turns = new Turns();
  const first = held();
  expect(turns.busy('a')).toBeUndefined();
  const running = turns.run('a', first.operation);
  const busy = turns.busy('a');
  expect(busy).toBeDefined();
  let done = false;
  const all = turns.allDone().then(() => {
    done = true;
  });
  await turnOfTheLoop();
  expect(done).toBe(false);
  first.end();
  await busy;
  await all;
  expect(await running).toBe('ended');
  expect(turns.busy('a')).toBeUndefined();
});

test('who asks again and again without waiting is told so', async () => {
  const turns = new Turns();
  const first = held();
  const asked = Array.from({ length: 100 }, () => turns.run('a', first.operation));
  first.end();
  const outcomes = await Promise.allSettled(asked);
  const refused = outcomes.filter(({ status }) => status === 'rejected');
  expect(refused.length).toBeGreaterThan(80);
  await expect(asked.at(-1)).rejects.toMatchObject({ code: 'unavailable' });
  expect(await turns.run('a', async () => 'again')).toBe('again');
});
