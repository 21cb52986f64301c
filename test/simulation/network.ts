/**
 * Links between members, and who can reach whom. A link keeps the order of its messages in each direction; links do not wait for one another. What
 * is cut stalls, as TCP's segments do, and goes on when it is whole again; messages are lost only at the end of a link, with all behind them.
 */

import type { MemberId, PrimaryMessage, SecondaryMessage } from '../../src/peer-protocol/messages.ts';
import type { Event } from '../../src/replication/effects.ts';
import type { Scheduler } from './scheduler.ts';

export type EventBody<E = Event> = E extends Event ? Omit<E, 'nowMs'> : never;

/** One life of a member's process, as its links see it. */
export interface Station {
  readonly id: MemberId;
  readonly isAlive: boolean;
  receive(source: string, event: EventBody): void;
}

export interface Hello {
  readonly epoch: number;
  readonly sizeBytes: number;
}

export interface LinkWelcome {
  readonly hasLostCache: boolean;
  readonly unsettled: readonly { readonly offset: number; readonly length: number }[];
  readonly alone: readonly { readonly offset: number; readonly length: number }[];
}

/** How long messages take: most are quick, some are late. */
export interface Delays {
  usualMs: number;
  lateMs: number;
  lateChance: number;
}

const CONNECT_TIMEOUT_MS = 2_000;
/** Until one side of a connection notices that the machine of the other has no power any more, or that a cut has lasted. */
const SILENCE_MS = 6_000;

export class Network {
  readonly scheduler: Scheduler;
  readonly delays: Delays = { usualMs: 1, lateMs: 400, lateChance: 0.01 };
  readonly #station: (id: MemberId) => Station | undefined;
  readonly #cuts = new Set<string>();
  readonly #links = new Set<Link>();
  #sessions = 0;

  constructor(scheduler: Scheduler, station: (id: MemberId) => Station | undefined) {
    this.scheduler = scheduler;
    this.#station = station;
  }

  /** Names are of members, of `directory`, and of hosts. */
  isCut(from: string, to: string): boolean {
    return this.#cuts.has(`${from}>${to}`);
  }

  cut(from: string, to: string): void {
    this.#cuts.add(`${from}>${to}`);
  }

  heal(from: string, to: string): void {
    this.#cuts.delete(`${from}>${to}`);
    for (const link of this.#links) link.healed(from, to);
  }

  healAll(): void {
    this.#cuts.clear();
    for (const link of this.#links) link.healed(undefined, undefined);
  }

  delayMs(): number {
    const { usualMs, lateMs, lateChance } = this.delays;
    if (this.scheduler.chance(lateChance)) return this.scheduler.between(usualMs, lateMs);
    return this.scheduler.between(usualMs / 10, usualMs);
  }

  connect(source: Station, to: MemberId, session: number, hello: Hello): Link {
    const link = new Link(this, source, to, session, ++this.#sessions);
    this.#links.add(link);
    link.begin(hello);
    return link;
  }

  forget(link: Link): void {
    this.#links.delete(link);
  }

  target(id: MemberId): Station | undefined {
    return this.#station(id);
  }

  /** A process has ended: what it had sent may still arrive, or not. */
  died(station: Station, hasPower: boolean): void {
    for (const link of [...this.#links]) link.sideDied(station, hasPower);
  }
}

type Side = 'primary' | 'secondary';

/** Messages of one direction, in their order. */
class Lane {
  readonly #network: Network;
  readonly from: string;
  readonly to: string;
  readonly waiting: (() => void)[] = [];
  #lastMs = 0;
  #lost = false;

  constructor(network: Network, from: string, to: string) {
    this.#network = network;
    this.from = from;
    this.to = to;
  }

  post(action: () => void): void {
    if (this.#lost) return;
    const { scheduler } = this.#network;
    this.waiting.push(action);
    this.#lastMs = Math.max(this.#lastMs, scheduler.nowMs + this.#network.delayMs());
    scheduler.after(this.#lastMs - scheduler.nowMs, () => this.pump(1));
  }

  pump(count: number): void {
    for (let left = count; left > 0 && this.waiting.length > 0; left--) {
      if (this.#network.isCut(this.from, this.to)) return;
      this.waiting.shift()?.();
    }
  }

  /** What is on its way is lost from somewhere on. */
  lose(keep: number): void {
    this.#lost = true;
    this.waiting.length = Math.min(this.waiting.length, keep);
  }
}

export class Link {
  readonly #network: Network;
  readonly #source: Station;
  readonly #to: MemberId;
  readonly #session: number;
  readonly secondarySession: number;
  readonly #toSecondary: Lane;
  readonly #toPrimary: Lane;
  #secondary: Station | undefined;
  #isPrimaryOpen = true;
  #isSecondaryOpen = false;
  #isUp = false;
  /** Writes that have not arrived, with the payload that they had when the primary let go of the link: until then it is the host's. */
  readonly #onTheirWay = new Map<PrimaryMessage, Buffer | undefined>();

  constructor(network: Network, source: Station, to: MemberId, session: number, secondarySession: number) {
    this.#network = network;
    this.#source = source;
    this.#to = to;
    this.#session = session;
    this.secondarySession = secondarySession;
    this.#toSecondary = new Lane(network, source.id, to);
    this.#toPrimary = new Lane(network, to, source.id);
  }

  begin(hello: Hello): void {
    const { scheduler } = this.#network;
    scheduler.after(CONNECT_TIMEOUT_MS, () => {
      if (!this.#isUp) this.#endAt('primary');
    });
    this.#toSecondary.post(() => {
      const station = this.#network.target(this.#to);
      // A connection that nobody waits for any more may still arrive, with its hello: most often it does not.
      if (!this.#isPrimaryOpen && scheduler.chance(0.5)) return this.#finish();
      if (station === undefined) return this.#toPrimary.post(() => this.#endAt('primary'));
      this.#secondary = station;
      this.#isSecondaryOpen = true;
      register(station, this.secondarySession, this);
      station.receive(this.#name('secondary'), {
        kind: 'hello',
        session: this.secondarySession,
        source: this.#source.id,
        ...hello,
      });
      if (!this.#isPrimaryOpen) this.#tellEnd('secondary');
    });
  }

  // What the primary's side does.

  send(message: PrimaryMessage): void {
    if (!this.#isPrimaryOpen) return;
    if (message.kind === 'write') this.#onTheirWay.set(message, undefined);
    this.#toSecondary.post(() => {
      const arrived = this.#arrived(message);
      if (!this.#isSecondaryOpen) return;
      this.#secondary?.receive(this.#name('secondary'), {
        kind: 'from-primary',
        session: this.secondarySession,
        message: arrived,
      });
    });
  }

  /** The payload is read as late as can be: when it arrives, or when the link is let go. */
  #arrived(message: PrimaryMessage): PrimaryMessage {
    if (message.kind !== 'write') return message;
    const payload = this.#onTheirWay.get(message) ?? Buffer.from(message.payload);
    this.#onTheirWay.delete(message);
    return { ...message, payload };
  }

  /** What is on its way has been read. */
  #letGo(): void {
    if (!this.#isPrimaryOpen) return;
    this.#isPrimaryOpen = false;
    for (const message of this.#onTheirWay.keys()) {
      if (message.kind === 'write') this.#onTheirWay.set(message, Buffer.from(message.payload));
    }
  }

  disconnect(): void {
    if (!this.#isPrimaryOpen) return;
    this.#letGo();
    this.#tellEnd('secondary');
  }

  // What the secondary's side does.

  welcome(welcome: LinkWelcome): void {
    this.#toPrimary.post(() => {
      if (!this.#isPrimaryOpen) return;
      this.#isUp = true;
      const { hasLostCache, unsettled, alone } = welcome;
      this.#source.receive(this.#name('primary'), {
        kind: 'link-up',
        to: this.#to,
        session: this.#session,
        ...{ hasLostCache, unsettled, alone },
      });
    });
  }

  refuse(
    code: 'stale-epoch' | 'unknown' | 'policy' | 'failed' | 'size' | 'busy' | 'version',
    epoch: number,
  ): void {
    this.#isSecondaryOpen = false;
    this.#toPrimary.post(() => {
      if (!this.#isPrimaryOpen) return;
      this.#isPrimaryOpen = false;
      const refused = { kind: 'link-refused', to: this.#to, session: this.#session, code, epoch } as const;
      this.#source.receive(this.#name('primary'), refused);
      this.#finish();
    });
  }

  reply(message: SecondaryMessage): void {
    if (!this.#isSecondaryOpen) return;
    this.#toPrimary.post(() => {
      if (!this.#isPrimaryOpen) return;
      this.#source.receive(this.#name('primary'), {
        kind: 'from-secondary',
        from: this.#to,
        session: this.#session,
        message,
      });
    });
  }

  /** By the secondary. */
  endSession(): void {
    if (!this.#isSecondaryOpen) return;
    this.#isSecondaryOpen = false;
    this.#tellEnd('primary');
  }

  // What happens to both.

  sideDied(station: Station, hasPower: boolean): void {
    const side: Side | undefined =
      station === this.#source ? 'primary' : station === this.#secondary ? 'secondary' : undefined;
    if (side === undefined) return;
    const other: Side = side === 'primary' ? 'secondary' : 'primary';
    if (side === 'primary') this.#letGo();
    else this.#isSecondaryOpen = false;
    if (hasPower) this.#tellEnd(other);
    else {
      this.#lane(other).lose(this.#network.scheduler.random.below(3));
      this.#network.scheduler.after(this.#network.scheduler.between(100, SILENCE_MS), () =>
        this.#endAt(other),
      );
    }
  }

  healed(from: string | undefined, to: string | undefined): void {
    for (const lane of [this.#toSecondary, this.#toPrimary]) {
      if (from !== undefined && (lane.from !== from || lane.to !== to)) continue;
      // All that stalls arrives at once, but not within what makes it whole again.
      this.#network.scheduler.after(this.#network.delayMs(), () => lane.pump(Number.POSITIVE_INFINITY));
    }
  }

  /** The one side has closed: the other hears of it behind what was sent, or, when that is cut, after a long silence. */
  #tellEnd(side: Side): void {
    const { scheduler } = this.#network;
    const lane = this.#lane(side);
    if (scheduler.chance(0.3)) lane.waiting.splice(scheduler.random.below(lane.waiting.length + 1));
    lane.post(() => this.#endAt(side));
    scheduler.after(scheduler.between(SILENCE_MS / 2, SILENCE_MS), () => this.#endAt(side));
  }

  #endAt(side: Side): void {
    if (side === 'primary') {
      if (!this.#isPrimaryOpen) return;
      this.#letGo();
      const down = { kind: 'link-down', to: this.#to, session: this.#session } as const;
      this.#source.receive(this.#name('primary'), down);
      if (this.#isSecondaryOpen) this.#tellEnd('secondary');
    } else {
      if (!this.#isSecondaryOpen) return;
      this.#isSecondaryOpen = false;
      const ended = { kind: 'session-ended', session: this.secondarySession } as const;
      this.#secondary?.receive(this.#name('secondary'), ended);
      if (this.#isPrimaryOpen) this.#tellEnd('primary');
    }
    this.#finish();
  }

  #lane(side: Side): Lane {
    return side === 'secondary' ? this.#toSecondary : this.#toPrimary;
  }

  #name(side: Side): string {
    return `${side} link ${this.secondarySession}`;
  }

  #finish(): void {
    if (!this.#isPrimaryOpen && !this.#isSecondaryOpen && this.#toSecondary.waiting.length === 0) {
      this.#network.forget(this);
    }
  }
}

const linksOf = new WeakMap<Station, Map<number, Link>>();

function register(station: Station, session: number, link: Link): void {
  const links = linksOf.get(station) ?? new Map<number, Link>();
  linksOf.set(station, links.set(session, link));
}

/** The link of a session at its secondary. */
export function linkAt(station: Station, session: number): Link | undefined {
  return linksOf.get(station)?.get(session);
}
