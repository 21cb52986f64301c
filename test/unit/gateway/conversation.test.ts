import { EventEmitter } from 'node:events';
import { describe, expect, test } from 'vitest';
import { type Channel, Conversation, type Topics } from '../../../src/gateway/conversation.ts';
import { placeOf } from '../../../src/gateway/workers.ts';
import { VolumeError } from '../../../src/model/errors.ts';

/** One side of a channel in this process, which delivers later and in order, as the real one does. */
class Side extends EventEmitter implements Channel {
  connected = true;
  other: Side | undefined;

  send(message: object, handle: unknown, callback: (error: Error | null) => void): boolean {
    setImmediate(() => {
      if (this.connected) this.other?.emit('message', structuredClone(message), handle);
      callback(this.connected ? null : new Error('closed'));
    });
    return true;
  }

  disconnect(): void {
    for (const side of [this, this.other]) {
      if (side === undefined) continue;
      side.connected = false;
      side.emit('disconnect');
    }
  }
}

function pair(there: Topics): { conversation: Conversation; side: Side; otherOne: Conversation } {
  const [side, other] = [new Side(), new Side()];
  side.other = other;
  other.other = side;
  return { conversation: new Conversation(side, {}), side, otherOne: new Conversation(other, there) };
}

describe('Conversation', () => {
  test('2: each question has its own answer, whatever the order in which they are ready', async () => {
    const { conversation } = pair({
      twice: async (number: number) => {
        await new Promise((resolve) => setTimeout(resolve, 20 - number * 10));
        return number * 2;
      },
    });
    const answers = await Promise.all([conversation.ask('twice', 1), conversation.ask('twice', 2)]);
    expect(answers).toEqual([2, 4]);
  });

  test('2: an error keeps its code', async () => {
    const { conversation } = pair({
      grow: () => {
        throw new VolumeError('no-space', 'no room');
      },
    });
    await expect(conversation.ask('grow', 1)).rejects.toMatchObject({ code: 'no-space', message: 'no room' });
  });

  test('1: what was told before an answer has arrived before it', async () => {
    const heard: unknown[] = [];
    const sides = [new Side(), new Side()] as const;
    sides[0].other = sides[1];
    sides[1].other = sides[0];
    const here = new Conversation(sides[0], { news: (body: number) => heard.push(body) });
    const there: Conversation = new Conversation(sides[1], {
      look: () => {
        for (const number of [1, 2, 3]) there.tell('news', number);
      },
    });
    await here.ask('look', undefined);
    expect(heard).toEqual([1, 2, 3]);
  });

  test('2: when the channel closes, and after that, questions fail', async () => {
    const { conversation, side } = pair({ never: () => new Promise(() => undefined) });
    const asked = conversation.ask('never', undefined);
    side.disconnect();
    await expect(asked).rejects.toMatchObject({ code: 'unavailable' });
    await expect(conversation.ask('never', undefined)).rejects.toMatchObject({ code: 'unavailable' });
  });

  test('2: when the other side is known to have ended, and the channel does not say so', async () => {
    const { conversation } = pair({ never: () => new Promise(() => undefined) });
    const asked = conversation.ask('never', undefined);
    conversation.close();
    await expect(asked).rejects.toMatchObject({ code: 'unavailable' });
    await expect(conversation.ask('never', undefined)).rejects.toMatchObject({ code: 'unavailable' });
  });
});

test('V3: every volume has one place, all places have volumes, and one place more moves only few', () => {
  const names = Array.from({ length: 1000 }, (_, index) => `volume-${index}`);
  const counts = [0, 0, 0, 0];
  let moved = 0;
  for (const name of names) {
    const place = placeOf(name, 4);
    expect(placeOf(name, 4)).toBe(place);
    counts[place] = (counts[place] ?? 0) + 1;
    const five = placeOf(name, 5);
    if (five !== place) {
      expect(five).toBe(4);
      moved += 1;
    }
  }
  for (const count of counts) expect(count).toBeGreaterThan(200);
  expect(moved).toBeLessThan(260);
  expect(placeOf('anything', 1)).toBe(0);
});
