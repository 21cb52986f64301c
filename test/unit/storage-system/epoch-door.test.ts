import { afterEach, describe, expect, test } from 'vitest';
import type { Volume } from '../../../src/model/volume.ts';
import { type DoorFile, EpochDoor } from '../../../src/storage-system/epoch-door.ts';
import { outcomeOf } from '../../contract/model-run.ts';
import { DelayVolume, Gate } from '../../support/volumes/delay-volume.ts';
import { LogVolume } from '../../support/volumes/log-volume.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';

const SIZE = 64 * 1024;
const page = Buffer.alloc(4096, 7);
const zeroes = { fua: false, noHole: false, fast: false };

function doorOf(volume: Volume, options: { readOnly?: boolean; file?: DoorFile } = {}): EpochDoor {
  const { blockSizes, capabilities, sizeBytes } = volume;
  const file = options.file ?? { volume, open: async () => volume };
  const { readOnly = false } = options;
  return new EpochDoor({ file, sizeBytes, blockSizes, capabilities, readOnly });
}

/** Whatever can be asked of a door. */
const operations: Record<string, (door: EpochDoor) => unknown> = {
  readNow: (door) => door.readNow(0, page, 0, 512),
  writeNow: (door) => door.writeNow(0, page, 0, 512),
  read: (door) => door.read(0, page, 0, 512),
  write: (door) => door.write(0, page, 0, 512, true),
  flush: (door) => door.flush(),
  trim: (door) => door.trim(0, 512, false),
  writeZeroes: (door) => door.writeZeroes(0, 512, zeroes),
  cache: (door) => door.cache(0, 512),
  blockStatus: (door) => door.blockStatus(0, 512, 1),
  resize: (door) => door.resize(),
};

describe('a door that has been shut', () => {
  test.each(Object.keys(operations))('%s fails as shutdown, and does not reach the file', async (name) => {
    const log = new LogVolume(new MemoryVolume(Buffer.alloc(SIZE)));
    const door = doorOf(log);
    await door.shut();
    const before = log.entries.length;
    await expect(async () => operations[name]?.(door)).rejects.toMatchObject({ code: 'shutdown' });
    expect(log.entries.length).toBe(before);
  });

  test.each(['read', 'write', 'flush', 'trim', 'writeZeroes', 'cache', 'blockStatus'])(
    'shut waits for a %s that is under way, which is carried out',
    async (name) => {
      const gate = new Gate();
      const door = doorOf(new DelayVolume(new MemoryVolume(Buffer.alloc(SIZE)), gate.delay));
      gate.shut();
      const order: string[] = [];
      const running = Promise.resolve(operations[name]?.(door)).then(() => order.push(name));
      const shut = door.shut().then(() => order.push('shut'));
      await new Promise((resolve) => setImmediate(resolve));
      expect(order).toEqual([]);
      expect(await outcomeOf(door.write(0, page, 0, 512, false))).toBe('shutdown');
      gate.open();
      await Promise.all([running, shut]);
      expect(order).toEqual([name, 'shut']);
      expect(await outcomeOf(door.shut())).toBe('done');
    },
  );

  test('what waited for the file to be opened does not reach it', async () => {
    const log = new LogVolume(new MemoryVolume(Buffer.alloc(SIZE)));
    const { promise, resolve } = Promise.withResolvers<Volume>();
    const door = doorOf(log, { file: { volume: undefined, open: () => promise } });
    const write = outcomeOf(door.write(0, page, 0, 4096, false));
    let isShut = false;
    const shut = door.shut().then(() => {
      isShut = true;
    });
    await new Promise((wake) => setImmediate(wake));
    expect(isShut).toBe(false);
    resolve(log);
    expect(await write).toBe('shutdown');
    await shut;
    expect(log.entries).toEqual([]);
  });
});

test('a file that is closed: nothing is done at once, and everything opens it', async () => {
  const memory = new MemoryVolume(Buffer.alloc(SIZE));
  let opened = 0;
  const open = async () => {
    opened += 1;
    return memory;
  };
  const door = doorOf(memory, { file: { volume: undefined, open } });
  expect(door.writeNow(0, page, 0, 4096)).toBe(false);
  expect(door.readNow(0, page, 0, 4096)).toBe(false);
  expect(door.mayHaveHoles(0, SIZE)).toBe(true);
  await door.write(0, page, 0, 4096, false);
  await door.flush();
  expect(opened).toBe(2);
});

test('a file that cannot be opened fails what needs it, and nothing stays under way', async () => {
  const memory = new MemoryVolume(Buffer.alloc(SIZE));
  const open = () => Promise.reject(new Error('no descriptor'));
  const door = doorOf(memory, { file: { volume: undefined, open } });
  await expect(door.flush()).rejects.toThrow('no descriptor');
  await door.shut();
});

describe('a door that comes to lead elsewhere', () => {
  const fileOf = (volume: Volume): DoorFile => ({ volume, open: async () => volume });

  test('waits for what is under way, lets nobody in meanwhile, and then in to what is there', async () => {
    const gate = new Gate();
    const before = new MemoryVolume(Buffer.alloc(SIZE));
    const after = new MemoryVolume(Buffer.alloc(SIZE));
    const door = doorOf(new DelayVolume(before, gate.delay));
    gate.shut();
    const order: string[] = [];
    const first = door.write(0, page, 0, 4096, false).then(() => order.push('first'));
    const held = door.hold().then(() => order.push('held'));
    const second = door.write(4096, page, 0, 4096, false).then(() => order.push('second'));
    expect(door.readNow(0, Buffer.alloc(512), 0, 512)).toBe(false);
    expect(door.writeNow(0, page, 0, 512)).toBe(false);
    await new Promise((resolve) => setImmediate(resolve));
    expect(order).toEqual([]);
    gate.open();
    await Promise.all([first, held]);
    expect(order).toEqual(['first', 'held']);
    door.leadTo(fileOf(after));
    await second;
    const target = Buffer.alloc(8192);
    await after.read(0, target, 0, 8192);
    expect(target.equals(Buffer.concat([Buffer.alloc(4096), page]))).toBe(true);
    await before.read(0, target, 0, 8192);
    expect(target.equals(Buffer.concat([page, Buffer.alloc(4096)]))).toBe(true);
  });

  test('shut meanwhile, those who wait are refused', async () => {
    const log = new LogVolume(new MemoryVolume(Buffer.alloc(SIZE)));
    const door = doorOf(log);
    await door.hold();
    const write = outcomeOf(door.write(0, page, 0, 4096, false));
    await door.shut();
    expect(await write).toBe('shutdown');
    door.leadTo(fileOf(log));
    expect(log.entries).toEqual([]);
  });

  test('what was being opened before is not what is written to after', async () => {
    const before = new LogVolume(new MemoryVolume(Buffer.alloc(SIZE)));
    const after = new LogVolume(new MemoryVolume(Buffer.alloc(SIZE)));
    const { promise, resolve } = Promise.withResolvers<Volume>();
    const door = doorOf(before, { file: { volume: undefined, open: () => promise } });
    const write = door.write(0, page, 0, 4096, false);
    await door.hold();
    door.leadTo(fileOf(after));
    resolve(before);
    await write;
    expect(before.entries).toEqual([]);
    expect(after.entries.length).toBeGreaterThan(0);
  });
});

test('nothing lies behind the size of the real volume, however long the file is', async () => {
  const memory = new MemoryVolume(Buffer.alloc(SIZE));
  const door = doorOf(memory);
  door.resized(8192);
  expect(door.sizeBytes).toBe(8192);
  expect(await outcomeOf(door.write(4096, page, 0, 4096, false))).toBe('done');
  expect(await outcomeOf(door.write(8191, page, 0, 2, false))).toBe('invalid');
  expect(() => door.readNow(8192, page, 0, 1)).toThrow(expect.objectContaining({ code: 'invalid' }));
  expect(() => door.writeNow(8192, page, 0, 1)).toThrow(expect.objectContaining({ code: 'invalid' }));
  door.resized(SIZE);
  expect(await outcomeOf(door.write(8192, page, 0, 4096, false))).toBe('done');
});

describe('a view for looking', () => {
  const contents = Buffer.alloc(SIZE, 3);

  test.each(['write', 'trim', 'writeZeroes'])('%s is refused', async (name) => {
    const log = new LogVolume(new MemoryVolume(Buffer.from(contents)));
    const door = doorOf(log, { readOnly: true });
    await expect(async () => operations[name]?.(door)).rejects.toMatchObject({ code: 'read-only' });
    expect(() => door.writeNow(0, page, 0, 1)).toThrow(expect.objectContaining({ code: 'read-only' }));
    expect(log.entries).toEqual([]);
  });

  test('a flush through it syncs nothing: nothing has been written through it', async () => {
    const log = new LogVolume(new MemoryVolume(Buffer.from(contents)));
    await doorOf(log, { readOnly: true }).flush();
    expect(log.entries).toEqual([]);
  });
});

afterEach(() => {
  page.fill(7); // reads go there as well
});
