import { describe, expect, test } from 'vitest';
import { VolumeError } from '../../../src/model/errors.ts';
import type { Request } from '../../../src/replication/effects.ts';
import {
  type Hosts,
  type OtherMember,
  ReplicatedVolume,
} from '../../../src/storage-system/replicated-volume.ts';
import { outcomeOf } from '../../contract/model-run.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';

const SIZE = 4 * 1024 * 1024;
const page = Buffer.alloc(4096, 7);
const turn = () => new Promise((resolve) => setImmediate(resolve));

class OtherVolume extends MemoryVolume implements OtherMember {
  givenUp = false;
  isClosed = false;
  /** Of a flush. */
  answer = Promise.resolve();
  flushes = 0;

  giveUp(): void {
    this.givenUp = true;
  }

  override flush(): Promise<void> {
    this.flushes += 1;
    return this.answer;
  }

  override async close(): Promise<void> {
    this.isClosed = true;
  }
}

function subject(hosts: Hosts = 'here') {
  const file = new MemoryVolume(Buffer.alloc(SIZE, 1));
  const asked: Request[] = [];
  const rules = {
    serves: true,
    answer: (_request: Request): Promise<void> => Promise.resolve(),
    servesNow: () => rules.serves,
    request: (request: Request) => {
      asked.push(request);
      return rules.answer(request);
    },
  };
  const volume = new ReplicatedVolume({ file, requests: rules });
  volume.serve(1, hosts);
  return { file, asked, rules, volume };
}

describe('reads', () => {
  test('come from the file without asking while the rules let them, also at once', async () => {
    const { volume, asked } = subject();
    const target = Buffer.alloc(4096);
    expect(volume.readNow(0, target, 0, 4096)).toBe(true);
    await volume.read(0, target, 0, 4096);
    expect(target.every((byte) => byte === 1)).toBe(true);
    expect(asked).toEqual([]);
  });

  test('are admitted or refused when the lease is over', async () => {
    const { volume, asked, rules } = subject();
    rules.serves = false;
    expect(volume.readNow(0, Buffer.alloc(512), 0, 512)).toBe(false);
    rules.answer = async () => {
      rules.serves = true;
    };
    await volume.read(0, Buffer.alloc(512), 0, 512);
    expect(asked).toEqual([{ kind: 'read' }]);
    rules.serves = false;
    rules.answer = () => Promise.reject(new VolumeError('shutdown', 'no lease'));
    expect(await outcomeOf(volume.read(0, Buffer.alloc(512), 0, 512))).toBe('shutdown');
    expect(await outcomeOf(volume.blockStatus(0, 512, 1))).toBe('shutdown');
  });
});

test('I11: what was read while the lease ended is answered only when it is there again, and by who is primary then', async () => {
  const { volume, file, asked, rules } = subject();
  const [disk, lease] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  file.read = () => disk.promise;
  rules.answer = () => lease.promise;
  const read = outcomeOf(volume.read(0, Buffer.alloc(512), 0, 512));
  await turn();
  rules.serves = false;
  disk.resolve();
  await turn();
  expect(asked).toEqual([{ kind: 'read' }]);
  volume.serve(2, 'refuse'); // another has become primary, and this file is not the volume any more
  lease.reject(new VolumeError('shutdown', 'deposed'));
  expect(await read).toBe('shutdown');
});

describe('changes', () => {
  test('go to the rules with their payload as it is, and never at once', async () => {
    const { volume, asked } = subject();
    expect(volume.writeNow(0, page, 0, 4096)).toBe(false);
    await volume.write(8192, page, 512, 1024, true);
    const [write] = asked;
    expect(write).toMatchObject({ kind: 'write', offset: 8192, length: 1024, fua: true });
    if (write?.kind !== 'write') throw new Error('it is a write');
    expect(write.payload.buffer).toBe(page.buffer);
    await volume.trim(0, 4096, false);
    await volume.writeZeroes(0, 4096, { fua: true, noHole: true, fast: false });
    await volume.flush();
    expect(asked.slice(1)).toEqual([
      { kind: 'trim', offset: 0, length: 4096, fua: false },
      { kind: 'zero', offset: 0, length: 4096, fua: true, noHole: true },
      { kind: 'flush' },
    ]);
  });

  test('long writes are made of several, all of which have ended when one fails', async () => {
    const { volume, asked, rules } = subject();
    let ended = 0;
    rules.answer = async (request) => {
      await turn();
      ended += 1;
      if (request.kind === 'write' && request.offset === 0) throw new VolumeError('no-space', 'full');
    };
    expect(await outcomeOf(volume.write(0, Buffer.alloc(SIZE), 0, SIZE, false))).toBe('no-space');
    expect(asked.length).toBe(4);
    expect(ended).toBe(4);
  });

  test('nothing of a length of 0, or outside, comes to the rules', async () => {
    const { volume, asked } = subject();
    await volume.write(SIZE, page, 0, 0, false);
    expect(await outcomeOf(volume.write(SIZE - 1, page, 0, 2, false))).toBe('invalid');
    expect(asked).toEqual([]);
  });
});

describe('hosts', () => {
  test('hold: requests wait, and are served when the epoch is', async () => {
    const { volume, asked } = subject('hold');
    const write = outcomeOf(volume.write(0, page, 0, 4096, false));
    expect(volume.readNow(0, Buffer.alloc(512), 0, 512)).toBe(false);
    await turn();
    expect(asked).toEqual([]);
    volume.serve(1, 'here');
    expect(await write).toBe('done');
    expect(asked.length).toBe(1);
  });

  test('N4: what waited for an older epoch is not served in a later one', async () => {
    const { volume, asked } = subject('hold');
    const write = outcomeOf(volume.write(0, page, 0, 4096, false));
    await turn();
    volume.serve(3, 'here');
    expect(await write).toBe('shutdown');
    expect(asked).toEqual([]);
  });

  test('refuse: shutdown, those that wait as well', async () => {
    const { volume } = subject('hold');
    const read = outcomeOf(volume.read(0, Buffer.alloc(512), 0, 512));
    await turn();
    volume.serve(2, 'refuse');
    expect(await read).toBe('shutdown');
    expect(await outcomeOf(volume.flush())).toBe('shutdown');
  });

  test('through: those that waited, those that the rules gave back, and those that come', async () => {
    const { volume, rules } = subject();
    const other = new OtherVolume(Buffer.alloc(SIZE, 2));
    const { promise, reject } = Promise.withResolvers<void>();
    rules.answer = () => promise;
    const givenBack = outcomeOf(volume.write(0, page, 0, 4096, false));
    volume.serve(1, 'hold');
    const waiting = outcomeOf(volume.write(4096, page, 0, 4096, false));
    await turn();
    let opened = 0;
    volume.serve(2, {
      through: async () => {
        opened += 1;
        return other;
      },
    });
    reject(new VolumeError('shutdown', 'handed over'));
    expect(await Promise.all([givenBack, waiting])).toEqual(['done', 'done']);
    await volume.write(8192, page, 0, 4096, true);
    const target = Buffer.alloc(16_384);
    await volume.read(0, target, 0, 16_384);
    expect(target.equals(Buffer.concat([page, page, page, Buffer.alloc(4096, 2)]))).toBe(true);
    expect(opened).toBe(1);
  });

  test('through: when nobody uses it the other member is let go of, and found again', async () => {
    const { volume } = subject();
    const others: OtherVolume[] = [];
    volume.serve(2, {
      through: async () => {
        const other = new OtherVolume(Buffer.alloc(SIZE, 2));
        others.push(other);
        return other;
      },
    });
    await volume.flush();
    volume.letGo();
    await turn();
    expect(others.map(({ givenUp, isClosed }) => [givenUp, isClosed])).toEqual([[false, true]]);
    await volume.flush();
    expect(others.length).toBe(2);
  });

  test('through: a primary that cannot be reached is shutdown, so that gateways look themselves', async () => {
    const { volume } = subject();
    volume.serve(2, { through: () => Promise.reject(new VolumeError('io', 'refused')) });
    expect(await outcomeOf(volume.flush())).toBe('shutdown');
  });

  test('through: what has been sent to one member is not sent to another, and has its answer from the first', async () => {
    const { volume } = subject();
    const [first, second] = [new OtherVolume(Buffer.alloc(SIZE)), new OtherVolume(Buffer.alloc(SIZE))];
    const answer = Promise.withResolvers<void>();
    first.answer = answer.promise;
    volume.serve(2, { through: async () => first });
    const sent = outcomeOf(volume.flush());
    await turn();
    volume.serve(2, { through: async () => second });
    await volume.flush();
    answer.resolve();
    expect(await sent).toBe('done');
    expect([first.flushes, second.flushes]).toEqual([1, 1]);
  });

  test.each([
    ['io', 'shutdown'],
    ['failed', 'shutdown'],
    ['shutdown', 'shutdown'],
    ['no-space', 'no-space'],
  ] as const)('through: what ended as %s there ends as %s here, and is sent once', async (there, here) => {
    const { volume } = subject();
    const other = new OtherVolume(Buffer.alloc(SIZE));
    other.answer = Promise.reject(new VolumeError(there, 'of the other member'));
    volume.serve(2, { through: async () => other });
    expect(await outcomeOf(volume.flush())).toBe(here);
    expect(other.flushes).toBe(1);
  });

  test('close: what waits for the other member is given up', async () => {
    const { volume } = subject();
    const other = new OtherVolume(Buffer.alloc(SIZE));
    const { promise, reject } = Promise.withResolvers<void>();
    other.answer = promise;
    other.giveUp = () => reject(new VolumeError('io', 'given up'));
    volume.serve(2, { through: async () => other });
    const sent = outcomeOf(volume.flush());
    await turn();
    await volume.close();
    expect(await sent).toBe('shutdown');
  });

  test('close: those that wait fail, and it waits for what is under way', async () => {
    const { volume } = subject('hold');
    const write = outcomeOf(volume.write(0, page, 0, 4096, false));
    await turn();
    await volume.close();
    expect(await write).toBe('shutdown');
  });
});
