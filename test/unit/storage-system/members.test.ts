import { existsSync, readFileSync, rmSync, truncateSync } from 'node:fs';
import { afterEach, describe, expect, test } from 'vitest';
import { AccessKey } from '../../../src/control-protocol/names.ts';
import { StoreError } from '../../../src/model/errors.ts';
import type { Volume } from '../../../src/model/volume.ts';
import { connectToPeer } from '../../../src/peer-protocol/connect.ts';
import type { Hello } from '../../../src/peer-protocol/messages.ts';
import { copiesOf } from '../../../src/storage-system/metrics.ts';
import { outcomeOf } from '../../contract/model-run.ts';
import { NbdClient } from '../../support/client.ts';
import { allDuplex, type Copy, type LabGroup, type LabOptions, MemberLab } from '../../support/member-lab.ts';
import { CLUSTER, epochOf, exportOf, idOf, KEY, MiB } from '../../support/storage-system.ts';
import { eventually } from '../../support/tools.ts';

const SIZE = 8 * MiB;
const SHUTDOWN = 108;

let lab: MemberLab;
const clients: NbdClient[] = [];
afterEach(async () => {
  for (const client of clients.splice(0)) client.wire.destroy();
  await lab[Symbol.asyncDispose]();
});

async function started(options: LabOptions = {}): Promise<MemberLab> {
  lab = await MemberLab.start(options);
  return lab;
}

async function duplexGroup(options: LabOptions = {}): Promise<LabGroup> {
  await started(options);
  const made = await lab.makeGroup(SIZE);
  await allDuplex(made);
  return made;
}

function copyOf({ copies }: LabGroup, n: number): Copy {
  const copy = copies[n];
  if (copy === undefined) throw new Error(`there is no copy ${n}`);
  return copy;
}

const volumeOf = (made: LabGroup, n: number): Volume => lab.volume(copyOf(made, n));
const page = (value: number, length = 4096): Buffer => Buffer.alloc(length, value);

async function connect({ storage, realVolume }: Copy, epoch = 1): Promise<NbdClient> {
  const client = await NbdClient.open(lab.system(storage).uri, exportOf(realVolume, epoch));
  clients.push(client);
  return client;
}

/** Writes pages wherever it likes until it is stopped; all are answered with success. */
function load(write: (offset: number, bytes: Buffer) => Promise<unknown>) {
  let isStopped = false;
  let writes = 0;
  const writer = async (n: number): Promise<void> => {
    for (let turn = n; !isStopped; turn += 7919) {
      await write((turn % (SIZE / 4096)) * 4096, page(turn & 0xff));
      writes += 1;
      await new Promise((resolve) => setImmediate(resolve)); // a write may be answered within one turn of the event loop
    }
  };
  const ended = Promise.all([1, 2, 3, 4].map(writer));
  return {
    get writes() {
      return writes;
    },
    stop: async () => {
      isStopped = true;
      await ended;
    },
  };
}

const viaNbd = (client: NbdClient) => async (offset: number, bytes: Buffer) => {
  expect(await client.write(offset, bytes)).toBe(0);
};

function expectEqual({ files }: LabGroup): void {
  const [first, ...others] = files.map((file) => readFileSync(file));
  for (const other of others) expect(first?.equals(other)).toBe(true);
}

test('I2: a write is in the files of all members when it is answered', async () => {
  const made = await duplexGroup({ systems: 3 });
  const volume = volumeOf(made, 0);
  for (let n = 0; n < 50; n++) {
    await volume.write(n * 70_000, page(n + 1, 5000), 0, 5000, n % 7 === 0);
    expectEqual(made);
  }
  await volume.writeZeroes(100_000, 50_000, { fua: false, noHole: false, fast: false });
  expectEqual(made);
  await volume.trim(300_000, 100_000, true);
  await volume.flush();
  expectEqual(made);
  expect(readFileSync(made.files[1] as string).readUInt8(70_000)).toBe(2);
});

test('a volume in use gets a copy: what is there is copied, and the connection that uses it goes on', async () => {
  await started();
  const alone = await lab.makeGroup(SIZE, ['s1']);
  const client = await connect(copyOf(alone, 0));
  const writing = load(viaNbd(client));
  await eventually('some writes', () => writing.writes > 100 || undefined);
  const made = await lab.addCopy(alone, 's2');
  await allDuplex(made);
  await writing.stop();
  expectEqual(made);
  expect(lab.system('s1').members.view(copyOf(made, 0).realVolume)).toMatchObject({
    ...{ role: 'primary', serving: true },
    pairs: [{ realVolume: copyOf(made, 1).realVolume, state: 'duplex', outOfSyncBytes: 0 }],
  });
});

test('a secondary goes and comes back: writes go on, and it gets what it lacks', async () => {
  const made = await duplexGroup();
  const writing = load((offset, bytes) => volumeOf(made, 0).write(offset, bytes, 0, bytes.length, false));
  await lab.system('s2').stop();
  await eventually('it is suspended', () => made.group.copy(idOf(2)).pair === 'suspended' || undefined);
  const { writes } = writing;
  await eventually('writes go on', () => writing.writes > writes + 100 || undefined);
  await lab.startSystem('s2');
  await allDuplex(made);
  await writing.stop();
  expectEqual(made);
});

test('a primary goes and comes back as primary, with what was durable of its group', async () => {
  const made = await duplexGroup();
  await volumeOf(made, 0).write(0, page(1), 0, 4096, false);
  await lab.system('s1').stop();
  await lab.startSystem('s1');
  await volumeOf(made, 0).write(4096, page(2), 0, 4096, true);
  expectEqual(made);
  expect(made.group.copy(idOf(2)).pair).toBe('duplex');
});

test('I14: a machine that is started anew after a clean stop has lost nothing: its primary does not give way', async () => {
  const made = await duplexGroup();
  await volumeOf(made, 0).write(0, page(1), 0, 4096, false);
  await lab.system('s1').stop();
  await lab.startSystem('s1', '0123456789abcdef0123456789abcdef');
  await volumeOf(made, 0).write(4096, page(2), 0, 4096, false);
  expectEqual(made);
  expect(lab.desk.leases.flatMap(({ givingWay }) => givingWay)).toEqual([]);
  expect(made.group.primary.realVolume).toBe(copyOf(made, 0).realVolume);
  await eventually('they are in step', () => {
    const views = ['s1', 's2'].flatMap((name) => lab.system(name).members.views());
    const { pairs, members, outOfSyncBytes } = copiesOf(views);
    expect([...members]).toEqual([
      ['primary', 1],
      ['secondary', 1],
    ]);
    return (pairs.get('duplex') === 1 && outOfSyncBytes === 0) || undefined;
  });
});

describe('switch', () => {
  test('I16: connections to the old primary go on through it, new ones find the new one alone', async () => {
    const made = await duplexGroup();
    const old = await connect(copyOf(made, 0));
    const writing = load(viaNbd(old));
    await eventually('some writes', () => writing.writes > 100 || undefined);
    await made.group.switchTo(copyOf(made, 1).realVolume);
    const { writes } = writing;
    await eventually('writes go on', () => writing.writes > writes + 100 || undefined);
    await writing.stop();
    expectEqual(made);
    await expect(connect(copyOf(made, 0), 1)).rejects.toThrow('refused');
    await expect(connect(copyOf(made, 0), 2)).rejects.toThrow('refused');
    const next = await connect(copyOf(made, 1), 2);
    expect(await next.write(0, page(9))).toBe(0);
    expect((await old.read(0, 4096)).data.equals(page(9))).toBe(true);
    expect(await old.write(4096, page(8))).toBe(0);
    expect((await next.read(4096, 4096)).data.equals(page(8))).toBe(true);
    expectEqual(made);
    expect(made.group.segment.copies.map(({ role, pair }) => [role, pair])).toEqual([
      ['secondary', 'duplex'],
      ['primary', 'simplex'],
    ]);
  });

  test('there and back again, under load', async () => {
    const made = await duplexGroup();
    const old = await connect(copyOf(made, 0));
    const writing = load(viaNbd(old));
    await made.group.switchTo(copyOf(made, 1).realVolume);
    await eventually(
      'the new one serves',
      () =>
        lab.system('s2').members.view(copyOf(made, 1).realVolume).pairs[0]?.state === 'duplex' || undefined,
    );
    await writing.stop();
    await made.group.switchTo(copyOf(made, 0).realVolume);
    const next = await eventually('the first is primary again', async () => {
      const outcome = await Promise.allSettled([connect(copyOf(made, 0), 3)]);
      return outcome[0].status === 'fulfilled' ? outcome[0].value : undefined;
    });
    expect(await next.write(0, page(3))).toBe(0);
    expectEqual(made);
    // The way through has been shut: its gateway has to look again.
    expect(await old.write(0, page(4)).catch(() => SHUTDOWN)).toBe(SHUTDOWN);
  });
});

test('I11, I12: a failover serves after the lease, and the old primary comes back as a secondary that is brought up', async () => {
  const made = await duplexGroup({ leaseMs: 600 });
  await volumeOf(made, 0).write(0, page(1), 0, 4096, false);
  await lab.system('s1').stop();
  made.group.failOver(copyOf(made, 1).realVolume);
  const client = await eventually('the door of the new epoch is open', async () => {
    const [outcome] = await Promise.allSettled([connect(copyOf(made, 1), 2)]);
    return outcome.status === 'fulfilled' ? outcome.value : undefined;
  });
  expect((await client.read(0, 4096)).data.equals(page(1))).toBe(true);
  expect(await client.write(8192, page(2))).toBe(0);
  await lab.startSystem('s1');
  await allDuplex(made);
  expectEqual(made);
  await expect(connect(copyOf(made, 0), 1)).rejects.toThrow('refused');
});

test('the last secondary is taken away: served as any real volume, on the same connections; nothing of it is left', async () => {
  const made = await duplexGroup();
  const client = await connect(copyOf(made, 0));
  const writing = load(viaNbd(client));
  const [first, second] = [copyOf(made, 0), copyOf(made, 1)];
  made.group.remove(second.realVolume);
  const { members, table, path } = lab.system('s1');
  await eventually('it is no member', () => !members.isMember(first.realVolume) || undefined);
  const { writes } = writing;
  await eventually('writes go on', () => writing.writes > writes + 100 || undefined);
  await writing.stop();
  expect(table.members().size).toBe(0);
  expect(existsSync(`${path}/copies/${first.realVolume}`)).toBe(false);
  await lab.system('s2').realVolumes.remove(second.realVolume, true);
  expect(existsSync(`${lab.system('s2').path}/copies/${second.realVolume}`)).toBe(false);
  expect(lab.system('s2').table.members().size).toBe(0);
});

test('I6: a difference bitmap that is gone at a start: its member may lack everything', async () => {
  const made = await duplexGroup();
  const [first, second] = [copyOf(made, 0), copyOf(made, 1)];
  await volumeOf(made, 0).write(MiB, page(1), 0, 4096, false);
  await lab.system('s2').stop();
  await volumeOf(made, 0).write(0, page(7), 0, 4096, true); // answered when the record says that s2 lacks it
  const { path } = lab.system('s1');
  await lab.system('s1').stop();
  rmSync(`${path}/copies/${first.realVolume}/lacks-${second.realVolume}`);
  await lab.startSystem('s1');
  await lab.startSystem('s2');
  await allDuplex(made);
  expectEqual(made);
});

test('each other member has a difference bitmap, also when it lacks nothing: a start after which none is missing copies nothing', async () => {
  const made = await duplexGroup();
  for (const [copy, other] of [made.copies, made.copies.toReversed()] as [Copy, Copy][]) {
    const { path } = lab.system(copy.storage);
    expect(existsSync(`${path}/copies/${copy.realVolume}/lacks-${other.realVolume}`)).toBe(true);
  }
  await volumeOf(made, 0).write(MiB, page(1), 0, 4096, true);
  await lab.system('s1').stop();
  await lab.startSystem('s1');
  await allDuplex(made);
  const [pair] = lab.system('s1').members.view(copyOf(made, 0).realVolume).pairs;
  expect(pair?.copiedBytes).toBe(0);
});

test('a real volume that is deleted by force ends what waits for others', async () => {
  const made = await duplexGroup();
  await lab.system('s2').stop();
  lab.desk.isAway = true; // so that nothing can be recorded, and writes wait
  const write = outcomeOf(volumeOf(made, 0).write(0, page(1), 0, 4096, false));
  await lab.system('s1').realVolumes.remove(copyOf(made, 0).realVolume, true);
  expect(await write).toBe('shutdown');
});

test('both grow, the secondary first, and what is written behind the old end is copied', async () => {
  const made = await duplexGroup();
  for (const n of [1, 0]) {
    const { storage, realVolume } = copyOf(made, n);
    await lab.system(storage).realVolumes.change(realVolume, { sizeBytes: 2 * SIZE });
  }
  made.group.change((segment) => ({ ...segment, length: 2 * SIZE }));
  await volumeOf(made, 0).write(2 * SIZE - 4096, page(5), 0, 4096, false);
  expectEqual(made);
  expect(made.group.copy(idOf(2)).pair).toBe('duplex');
});

test('I14, N3: a secondary that has failed is suspended, and brought up when it is taken back', async () => {
  const made = await duplexGroup();
  const { storage, realVolume } = copyOf(made, 1);
  truncateSync(made.files[1] as string, SIZE / 2);
  await volumeOf(made, 0).flush();
  await eventually('it is suspended', () => made.group.copy(realVolume).pair === 'suspended' || undefined);
  await volumeOf(made, 0).write(0, page(7), 0, 4096, true);
  truncateSync(made.files[1] as string, SIZE);
  await lab.system(storage).realVolumes.change(realVolume, { failure: 'accepted' });
  await allDuplex(made);
  expectEqual(made);
});

test.each([
  ['s1', 'a primary'],
  ['s2', 'a secondary'],
])(
  'I17: on %s, %s that cannot keep what it must fails alone, as if it had crashed, and begins anew',
  async (name) => {
    let [isFailing, failures] = [false, 0];
    const made = await duplexGroup({
      folders: (system, folders) => ({
        ...folders,
        open: async (...args) => {
          const folder = await folders.open(...args);
          const begun: typeof folder.begun = (token, range) => {
            if (isFailing && system === name) {
              isFailing = false;
              failures += 1;
              throw new StoreError('no-space', 'the disk is full');
            }
            folder.begun(token, range);
          };
          return { ...folder, begun };
        },
      }),
    });
    await volumeOf(made, 0).write(0, page(1), 0, 4096, false);
    isFailing = true;
    // A primary tells its hosts to look elsewhere, and serves them again here.
    const answers = [SIZE - 4096, SIZE - 8192].map((offset) =>
      eventually('a write is answered', async () => {
        const volume = lab.system('s1').members.behind(copyOf(made, 0).realVolume)?.volume;
        if (volume === undefined) return undefined;
        const outcome = await outcomeOf(volume.write(offset, page(2), 0, 4096, false));
        return outcome === 'done' || undefined;
      }),
    );
    await Promise.all(answers);
    await allDuplex(made);
    expect(failures).toBe(1);
    await eventually('both hold it', () => {
      const files = made.files.map((file) => readFileSync(file));
      return files.every((bytes) => bytes.equals(files[0] as Buffer) && bytes.at(-1) === 2) || undefined;
    });
  },
);

test('a member whose folder cannot be opened serves nobody, says so, and begins when it is told its group again', async () => {
  let isFull = false;
  const made = await duplexGroup({
    folders: (_, folders) => ({
      ...folders,
      open: async (...args) => {
        if (isFull) throw new StoreError('no-space', 'the disk is full');
        return folders.open(...args);
      },
    }),
  });
  const [primary] = made.copies.map(({ realVolume }) => realVolume);
  await lab.system('s1').stop();
  isFull = true;
  await lab.startSystem('s1');
  await expect(connect(copyOf(made, 0))).rejects.toThrow('refused');
  expect(lab.system('s1').members.failed()).toMatchObject([{ realVolume: primary }]);
  await expect(made.group.tell()).rejects.toMatchObject({ code: 'failed' });
  isFull = false;
  await made.group.tell();
  await allDuplex(made);
  await volumeOf(made, 0).write(0, page(1), 0, 4096, false);
  expectEqual(made);
  expect(lab.system('s1').members.failed()).toEqual([]);
});

test('I10: what an older epoch carries is refused, and an older revision is nothing', async () => {
  const made = await duplexGroup();
  const { members } = lab.system('s1');
  const { realVolume } = copyOf(made, 0);
  const config = lab.system('s1').table.members().get(realVolume)?.config;
  if (config === undefined) throw new Error('the member has been told its group');
  await members.configure(realVolume, { ...config, epoch: epochOf(5), revision: config.revision + 100 });
  await expect(members.configure(realVolume, config)).rejects.toMatchObject({ code: 'stale-epoch' });
  const older = { ...config, epoch: epochOf(5), revision: 1, copyBytesPerSecond: 77 };
  expect((await members.configure(realVolume, older)).revision).toBe(config.revision + 100);
  expect(lab.system('s1').table.get(realVolume)?.epoch).toBe(5);
});

describe('a hello is refused', () => {
  test.each([
    ['to a real volume that is not there', { target: idOf(77) }, 'unknown'],
    ['from another cluster', { clusterId: '22222222-2222-4333-8444-555555555555' }, 'unknown'],
    ['with the wrong key', { accessKey: AccessKey.parse('f'.repeat(32)) }, 'policy'],
    ['of an older epoch', { epoch: 0.5 }, 'stale-epoch'],
    ['from who is not its primary', { source: idOf(78) }, 'unknown'],
    ['to a smaller volume', { sizeBytes: SIZE * 2 }, 'size'],
  ] as const)('%s', async (_, changes, code) => {
    const made = await duplexGroup();
    const right: Hello = {
      ...{ kind: 'hello', clusterId: CLUSTER, accessKey: KEY, epoch: 2, sizeBytes: SIZE },
      ...{ source: copyOf(made, 0).realVolume, target: copyOf(made, 1).realVolume },
    };
    await lab.system('s1').stop();
    made.group.change((segment) => ({ ...segment, epoch: epochOf(2) }));
    await eventually('the epoch is known', () => {
      return lab.system('s2').table.get(copyOf(made, 1).realVolume)?.epoch === 2 || undefined;
    });
    const epoch = 'epoch' in changes ? 1 : 2;
    const answer = await connectToPeer({
      ...{ address: lab.system('s2').peer, timeoutMs: 2_000, signal: new AbortController().signal },
      hello: { ...right, ...changes, epoch },
    });
    expect(answer).toMatchObject({ kind: 'refused', refusal: { code } });
  });
});
