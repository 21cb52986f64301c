/**
 * What goes wrong in a simulated cluster, and what people do to it, at random times. Each run has its own mixture: with everything at once, many
 * faults would hide one another.
 */

import type { MemberId } from '../../src/peer-protocol/messages.ts';
import { SIZES, VOLUME_BYTES } from './layout.ts';
import type { RunOptions, World } from './world.ts';

type Fault = (world: World) => void;

const MEMBERS_MAX = 4;

function anyMember(world: World): MemberId {
  const { copies } = world.directory.segment;
  // Most of what is interesting happens to the primary.
  if (world.scheduler.chance(0.4)) return world.directory.primary;
  return world.scheduler.pick(copies)?.realVolume ?? world.directory.primary;
}

function restartLater(world: World, id: MemberId): void {
  world.scheduler.after(world.scheduler.between(20, world.scheduler.chance(0.2) ? 8_000 : 1_500), () =>
    world.start(id),
  );
}

/** A pair of names that a cut can be between. */
function anyTwo(world: World): [string, string] {
  const { scheduler } = world;
  const names = [
    ...world.directory.segment.copies.map(({ realVolume }) => realVolume as string),
    'directory',
    ...(scheduler.chance(0.3) ? world.hosts.map(({ name }) => name) : []),
  ];
  const one = scheduler.pick(names) ?? 'directory';
  const other = scheduler.pick(names.filter((name) => name !== one)) ?? 'directory';
  return [one, other];
}

const FAULTS: Record<string, Fault> = {
  kill(world) {
    const id = anyMember(world);
    world.kill(id);
    restartLater(world, id);
  },
  killBetweenEffects(world) {
    const id = anyMember(world);
    const process = world.process(id);
    if (process !== undefined) process.effectsLeft = world.scheduler.random.below(60);
    world.scheduler.after(1_000, () => restartLater(world, id));
  },
  power(world) {
    const id = anyMember(world);
    world.losePower(id);
    restartLater(world, id);
  },
  powerOfAll(world) {
    for (const { realVolume } of world.directory.segment.copies) {
      if (world.scheduler.chance(0.8)) world.losePower(realVolume);
      else world.kill(realVolume);
      restartLater(world, realVolume);
    }
  },
  freeze(world) {
    const process = world.process(anyMember(world));
    process?.freeze();
    world.scheduler.after(world.scheduler.between(50, world.scheduler.chance(0.5) ? 1_000 : 8_000), () =>
      process?.thaw(),
    );
  },
  cutOneWay(world) {
    const [one, other] = anyTwo(world);
    world.trace('NETWORK', () => `${one} > ${other} CUT`);
    world.network.cut(one, other);
    world.scheduler.after(world.scheduler.between(50, 7_000), () => world.network.heal(one, other));
  },
  cut(world) {
    const [one, other] = anyTwo(world);
    world.trace('NETWORK', () => `${one} = ${other} CUT`);
    world.network.cut(one, other);
    world.network.cut(other, one);
    world.scheduler.after(world.scheduler.between(50, 7_000), () => {
      world.network.heal(one, other);
      world.network.heal(other, one);
    });
  },
  isolate(world) {
    const id = anyMember(world);
    const names = [
      'directory',
      ...world.directory.segment.copies.map(({ realVolume }) => realVolume as string),
    ];
    const others = names.filter((name) => name !== id && world.scheduler.chance(0.8));
    world.trace('NETWORK', () => `${id} CUT from ${others.join(' ')}`);
    for (const other of others) {
      world.network.cut(id, other);
      world.network.cut(other, id);
    }
    world.scheduler.after(world.scheduler.between(500, 8_000), () => {
      for (const other of others) {
        world.network.heal(id, other);
        world.network.heal(other, id);
      }
    });
  },
  directoryDown(world) {
    world.trace('directory', () => 'DOWN');
    world.directory.isUp = false;
    world.scheduler.after(world.scheduler.between(100, 7_000), () => world.directory.start());
  },
  slowNetwork(world) {
    const { delays } = world.network;
    delays.usualMs = world.scheduler.between(5, 200);
    world.scheduler.after(world.scheduler.between(300, 3_000), () => {
      delays.usualMs = 1;
    });
  },
  gatewayCrash(world) {
    world.scheduler.pick(world.hosts)?.crash();
  },

  // What people do.
  add(world) {
    if (world.directory.segment.copies.length >= MEMBERS_MAX) return;
    const copy = world.makeCopy();
    if (world.directory.add(copy)) world.start(copy.realVolume);
  },
  remove(world) {
    const copy = world.scheduler.pick(world.directory.secondaries());
    if (copy === undefined || !world.directory.remove(copy.realVolume)) return;
    // Its storage system is told to delete it as soon as it can be reached.
    world.scheduler.after(world.scheduler.between(0, 3_000), () => world.destroy(copy.realVolume));
  },
  suspend(world) {
    const copy = world.scheduler.pick(world.directory.secondaries());
    if (copy !== undefined) world.directory.want(copy.realVolume, 'suspended');
    if (copy !== undefined && world.scheduler.chance(0.8)) {
      world.scheduler.after(world.scheduler.between(100, 4_000), () =>
        world.directory.want(copy.realVolume, 'following'),
      );
    }
  },
  resync(world) {
    for (const { realVolume } of world.directory.secondaries()) world.directory.want(realVolume, 'following');
  },
  switch(world) {
    const copy = world.scheduler.pick(world.directory.secondaries().filter(({ pair }) => pair === 'duplex'));
    if (copy !== undefined) world.directory.switch(copy.realVolume);
  },
  failover(world) {
    const copy = world.scheduler.pick(world.directory.secondaries().filter(({ pair }) => pair === 'duplex'));
    if (copy !== undefined) world.directory.failover(copy.realVolume, false);
  },
  killAndFailover(world) {
    const id = world.directory.primary;
    const copy = world.scheduler.pick(world.directory.secondaries().filter(({ pair }) => pair === 'duplex'));
    if (world.scheduler.chance(0.5)) world.kill(id);
    else world.losePower(id);
    restartLater(world, id);
    world.scheduler.after(world.scheduler.between(0, 1_000), () => {
      if (copy !== undefined) world.directory.failover(copy.realVolume, false);
    });
  },
  /** A primary that cannot hear of it is replaced, and not every gateway hears of that either. */
  deposeUnheard(world) {
    const id = world.directory.primary;
    const copy = world.scheduler.pick(world.directory.secondaries().filter(({ pair }) => pair === 'duplex'));
    if (copy === undefined) return;
    const names = [
      'directory',
      ...world.directory.segment.copies.map(({ realVolume }) => realVolume as string),
    ];
    const cuts = names.filter((name) => name !== id).map((name) => [name, id] as const);
    const host = world.scheduler.pick(world.hosts)?.name ?? 'host';
    const all = [...cuts, ...cuts.map(([one, other]) => [other, one] as const), ['directory', host] as const];
    world.trace('NETWORK', () => `${id} CUT from all, ${host} from the directory`);
    for (const [one, other] of all) world.network.cut(one, other);
    world.scheduler.after(world.scheduler.between(0, 3_000), () =>
      world.directory.failover(copy.realVolume, false),
    );
    world.scheduler.after(world.scheduler.between(4_000, 10_000), () => {
      for (const [one, other] of all) world.network.heal(one, other);
    });
  },
  forcedFailover(world) {
    if (world.scheduler.chance(0.6)) return;
    const copy = world.scheduler.pick(world.directory.secondaries());
    if (copy !== undefined) world.directory.failover(copy.realVolume, true);
  },
};

/** Came later: runs of the first era do without them. */
const LATER: Record<string, Fault> = {
  resize(world) {
    const sizeBytes = world.scheduler.pick(SIZES) ?? VOLUME_BYTES;
    if (!world.directory.resize(sizeBytes)) return;
    const { scheduler } = world;
    // Somebody dies between its file, what is kept beside it, and what the directory hears.
    if (scheduler.chance(0.4)) {
      const id = anyMember(world);
      scheduler.after(scheduler.between(0, 60), () => {
        world.kill(id);
        restartLater(world, id);
      });
    }
    // And as large again in no time, while much of before is unsettled.
    if (scheduler.chance(0.5)) {
      const again = (): void => {
        if (!world.directory.resize(VOLUME_BYTES) && world.directory.isBusy) scheduler.after(20, again);
      };
      scheduler.after(scheduler.between(5, 200), again);
    }
  },
  fullDisk(world) {
    const disk = world.disk(anyMember(world));
    if (disk === undefined) return;
    world.trace('DISK', () => 'FULL');
    disk.isFull = true;
    world.scheduler.after(world.scheduler.between(50, 4_000), () => {
      disk.isFull = false;
    });
  },
  unreadable(world) {
    const disk = world.disk(anyMember(world));
    if (disk === undefined) return;
    world.trace('DISK', () => 'UNREADABLE');
    disk.isUnreadable = true;
    world.scheduler.after(world.scheduler.between(50, 4_000), () => {
      disk.isUnreadable = false;
    });
  },
};

/** For runs of their own. */
const WITH_OLDER_CATALOGS: Record<string, Fault> = {
  olderCatalog(world) {
    world.directory.putBack();
  },
};

/** Came with passages that are late. */
const LATEST: Record<string, Fault> = {
  breakConnections(world) {
    breakConnections(world);
  },
  slowPassages(world) {
    slowPassages(world);
  },
  /** Whoever has something in hand at the old primary loses it, one way or another, and its copy comes late. */
  switchAndBreak(world) {
    const copy = world.scheduler.pick(world.directory.secondaries().filter(({ pair }) => pair === 'duplex'));
    if (copy === undefined || !world.directory.switch(copy.realVolume)) return;
    const { scheduler } = world;
    slowPassages(world);
    for (let left = 1 + scheduler.random.below(4); left > 0; left--) {
      scheduler.after(scheduler.between(0, 400), () => breakConnections(world));
    }
  },
  /** The old primary stands still with what it has in hand; the new one may have been started anew when it goes on. */
  switchAndFreeze(world) {
    const copy = world.scheduler.pick(world.directory.secondaries().filter(({ pair }) => pair === 'duplex'));
    const process = world.process(world.directory.primary);
    if (copy === undefined || !world.directory.switch(copy.realVolume)) return;
    const { scheduler } = world;
    scheduler.after(scheduler.between(0, 30), () => process?.freeze());
    scheduler.after(scheduler.between(500, 8_000), () => process?.thaw());
    if (scheduler.chance(0.5)) return;
    scheduler.after(scheduler.between(300, 4_000), () => {
      world.kill(copy.realVolume);
      scheduler.after(scheduler.between(20, 200), () => world.start(copy.realVolume));
    });
  },
};

function slowPassages({ passages, scheduler }: World): void {
  passages.slowMs = scheduler.between(50, 3_000);
  scheduler.after(scheduler.between(300, 6_000), () => {
    passages.slowMs = 0;
  });
}

function breakConnections({ hosts, passages, scheduler }: World): void {
  if (scheduler.chance(0.2)) passages.breakAll();
  else scheduler.pick(hosts)?.breakPaths();
}

const USUAL: Record<string, Fault> = { ...FAULTS, ...LATER, ...LATEST };
const ALL: Record<string, Fault> = { ...USUAL, ...WITH_OLDER_CATALOGS };

export class Faults {
  readonly #world: World;
  readonly #weights: [name: string, weight: number][];
  readonly #everyMs: number;
  #isOver = false;

  constructor(world: World, { mutant, era, hasOlderCatalogs }: RunOptions) {
    const only = mutant?.faults;
    const { scheduler } = world;
    this.#world = world;
    const latest = hasOlderCatalogs === true ? ALL : USUAL;
    const names = Object.keys(era === 1 ? FAULTS : era === 2 ? { ...FAULTS, ...LATER } : latest);
    this.#weights = names.map((name) => {
      const isAway = !(name in WITH_OLDER_CATALOGS) && scheduler.chance(0.5);
      const weight = isAway ? 0 : scheduler.between(0, 1);
      return [name, only === undefined ? weight : only.includes(name) ? 1 : 0];
    });
    this.#everyMs = scheduler.chance(0.3) ? scheduler.between(100, 400) : scheduler.between(400, 3_000);
  }

  begin(): void {
    const { scheduler } = this.#world;
    scheduler.after(scheduler.between(0, 2 * this.#everyMs), () => {
      if (this.#isOver) return;
      const name = this.#pick();
      const { faults } = this.#world.statistics;
      faults[name] = (faults[name] ?? 0) + 1;
      ALL[name]?.(this.#world);
      this.begin();
    });
  }

  /** Everything is mended; what a person had suspended may follow again, or not. */
  end(): void {
    this.#isOver = true;
    const { directory, network, scheduler } = this.#world;
    network.healAll();
    network.delays.usualMs = 1;
    this.#world.passages.slowMs = 0;
    directory.start();
    for (const { id, process, disk } of this.#world.members) {
      [disk.isFull, disk.isUnreadable] = [false, false];
      if (process !== undefined) process.effectsLeft = Number.POSITIVE_INFINITY;
      process?.thaw();
      this.#world.start(id);
    }
    if (scheduler.chance(0.7)) FAULTS.resync?.(this.#world);
  }

  #pick(): string {
    let left =
      this.#world.scheduler.random.next() * this.#weights.reduce((sum, [, weight]) => sum + weight, 0);
    for (const [name, weight] of this.#weights) {
      left -= weight;
      if (left < 0) return name;
    }
    return 'kill';
  }
}
