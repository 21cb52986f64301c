/** T3: a client with thousands of tiny requests leaves the others their turn. */

import { expect, test } from 'vitest';
import { Command } from '../../../src/nbd-server-protocol/constants.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';
import { type Call, WrappedVolume } from '../../support/volumes/wrapped-volume.ts';
import { requestMessage } from '../../support/wire.ts';
import { lab, pattern } from './lab.ts';

const OTHERS_PLACE = 64 * 1024;

class CountingVolume extends WrappedVolume {
  greedyReads = 0;
  onFirst = () => {};
  greedyReadsBeforeOther: number | undefined;

  protected override around<T>(_call: Call, operation: () => Promise<T>): Promise<T> {
    return operation();
  }

  protected override aroundNow({ offset }: Call, operation: () => boolean): boolean {
    if (offset === OTHERS_PLACE) this.greedyReadsBeforeOther ??= this.greedyReads;
    else {
      if (this.greedyReads === 0) this.onFirst();
      this.greedyReads += 1;
    }
    return operation();
  }
}

test('20,000 reads of one byte, sent at once, and one of another client', async () => {
  const volume = new CountingVolume(new MemoryVolume(pattern(128 * 1024)));
  await using server = await lab(volume);
  const greedy = await server.open({ style: 'simple' });
  const other = await server.open({ style: 'simple' });
  const request = requestMessage('simple', { type: Command.read, offset: 0, length: 1 });
  greedy.wire.send(Buffer.concat(Array.from({ length: 20_000 }, () => request)));
  // It comes while the server is at work on the first of them.
  volume.onFirst = () => other.send({ type: Command.read, offset: OTHERS_PLACE, length: 512 });
  await other.next();
  expect(volume.greedyReadsBeforeOther).toBeLessThan(4000);
});
