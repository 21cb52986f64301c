/**
 * The connections of one member: to its secondaries, while it is primary, and from its primary. Turns what happens to them into
 * events, each session of which ends with exactly one of them.
 *
 * A link is told everything in the turn in which the rules said it; what a peer says is handed over as one batch.
 *
 * Invariant: a session leads to where its member is. When the directory says that it is elsewhere, the session ends: who is still there may be a
 * process that has been taken for the member before, and is cut off from the directory.
 */

import { timingSafeEqual } from 'node:crypto';
import type { GroupConfig, GroupMember } from '../control-protocol/copy-groups.ts';
import { assert } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import { DEFAULT_WINDOW } from '../peer-protocol/constants.ts';
import { PeerError } from '../peer-protocol/errors.ts';
import type { Connected, LinkEvents, PrimaryLink, SecondaryLink } from '../peer-protocol/links.ts';
import type {
  Hello,
  MemberId,
  PrimaryMessage,
  RefusalCode,
  SecondaryMessage,
} from '../peer-protocol/messages.ts';
import type { Effect, Event, Token } from '../replication/effects.ts';

/** Connects to a secondary, says hello, and resolves with what it answers; rejects with a PeerError. */
export type Connect = (target: PeerTarget, hello: Hello, signal: AbortSignal) => Promise<Connected>;

export interface PeerTarget {
  readonly host: string;
  readonly port: number;
}

export interface MemberLinksOptions {
  readonly id: MemberId;
  readonly connect: Connect;
  readonly clusterId: () => string | undefined;
  readonly sizeBytes: () => number;
  /** The group as it was told last. */
  readonly config: () => GroupConfig | undefined;
  /** Something happens; the rules hear of it when `run` is called. */
  readonly tell: (event: Event) => void;
  readonly run: () => void;
  readonly log: Log;
}

type SessionEffect = Extract<Effect, { readonly session: Token }>;

const REFUSED: Record<RefusalCode, string> = {
  'stale-epoch': 'a newer epoch is known here',
  unknown: 'there is no such real volume here, or it is not of that group',
  policy: 'that is not its access key',
  failed: 'it has failed',
  size: 'it has another size',
  busy: 'something of an earlier session is under way',
  version: 'no version of the protocol is spoken on both sides',
};

export class MemberLinks {
  readonly #options: MemberLinksOptions;
  /** Sessions that this member has begun: connecting, until there is a link. */
  readonly #begun = new Map<Token, PrimaryLink | AbortController>();
  /** Where those lead, the latest last. */
  readonly #places = new Map<Token, { readonly to: MemberId; readonly peer: PeerTarget }>();
  /** Sessions that its primary has begun. */
  readonly #received = new Map<Token, SecondaryLink>();
  /** Those on which something was sent since the last `flush`. */
  readonly #sentOn: (PrimaryLink | SecondaryLink)[] = [];
  /** Counts those of its primary. */
  #sessions = 0;

  constructor(options: MemberLinksOptions) {
    this.#options = options;
  }

  carryOut(effect: SessionEffect): void {
    switch (effect.kind) {
      case 'connect':
        void this.#connect(effect);
        break;
      case 'disconnect':
        this.#disconnect(effect.session);
        break;
      case 'send': {
        const link = this.#begun.get(effect.session);
        if (link === undefined || link instanceof AbortController) break;
        link.send(effect.message);
        this.#hasSent(link);
        break;
      }
      case 'welcome': {
        const { hasLostCache, unsettled, alone } = effect;
        const welcome = { ...DEFAULT_WINDOW, hasLostCache };
        this.#received.get(effect.session)?.accept({ welcome, unsettled, alone });
        break;
      }
      case 'refuse': {
        const { code, epoch } = effect;
        this.#received.get(effect.session)?.refuse({ code, epoch, text: REFUSED[code] });
        break;
      }
      case 'reply': {
        const link = this.#received.get(effect.session);
        link?.send(effect.message);
        if (link !== undefined) this.#hasSent(link);
        break;
      }
      case 'end-session':
        this.#received.get(effect.session)?.close();
        break;
    }
  }

  /** The group has been told anew. */
  configured(config: GroupConfig): void {
    for (const [session, { to, peer }] of this.#places) {
      const member = memberOf(config, to);
      if (member !== undefined && !isSamePlace(member.peer, peer)) this.#disconnect(session);
    }
  }

  /** Where the latest session with that member leads. */
  placeOf(member: MemberId): PeerTarget | undefined {
    return [...this.#places.values()].findLast(({ to }) => to === member)?.peer;
  }

  #disconnect(session: Token): void {
    const link = this.#begun.get(session);
    if (link instanceof AbortController) link.abort();
    else link?.destroy();
  }

  /** What was sent leaves now. */
  flush(): void {
    for (const link of this.#sentOn) link.flush();
    this.#sentOn.length = 0;
  }

  #hasSent(link: PrimaryLink | SecondaryLink): void {
    if (!this.#sentOn.includes(link)) this.#sentOn.push(link);
  }

  /** A primary has said hello to this member, with its key. */
  received(link: SecondaryLink): LinkEvents<PrimaryMessage> {
    const { tell, run } = this.#options;
    this.#sessions += 1;
    const session = this.#sessions;
    this.#received.set(session, link);
    const { source, epoch, sizeBytes } = link.hello;
    // Not from within the call: whoever hands the link over has nothing to call yet.
    tell({ kind: 'hello', nowMs: 0, session, source, epoch, sizeBytes });
    queueMicrotask(run);
    return {
      onMessages: (batch) => {
        for (const message of batch) tell({ kind: 'from-primary', nowMs: 0, session, message });
        run();
      },
      onClosed: () => {
        this.#received.delete(session);
        tell({ kind: 'session-ended', nowMs: 0, session });
        run();
      },
    };
  }

  /** Ends all at once. */
  destroy(): void {
    for (const link of this.#begun.values()) {
      if (link instanceof AbortController) link.abort();
      else link.destroy();
    }
    for (const link of this.#received.values()) link.destroy();
  }

  async #connect({ to, session, epoch }: Extract<Effect, { kind: 'connect' }>): Promise<void> {
    const { config, connect, clusterId, id, sizeBytes, log } = this.#options;
    const giveUp = new AbortController();
    this.#begun.set(session, giveUp);
    const member = memberOf(config(), to);
    const cluster = clusterId();
    try {
      if (member === undefined || cluster === undefined) {
        throw new PeerError('unreachable', `no address of ${to} is known`);
      }
      const { peer, accessKey } = member;
      this.#places.set(session, { to, peer });
      const hello = { kind: 'hello', clusterId: cluster, accessKey, source: id, target: to, epoch } as const;
      const connected = await connect(peer, { ...hello, sizeBytes: sizeBytes() }, giveUp.signal);
      this.#connected(to, session, connected, giveUp.signal);
    } catch (error) {
      if (!(error instanceof PeerError)) throw error;
      log.debug({ pair: to, error: error.message }, 'a copy could not be connected to');
      this.#ended(to, session);
    }
  }

  #connected(to: MemberId, session: Token, connected: Connected, signal: AbortSignal): void {
    const { tell, run } = this.#options;
    if (connected.kind === 'refused') {
      const { code, epoch } = connected.refusal;
      this.#begun.delete(session);
      this.#places.delete(session);
      tell({ kind: 'link-refused', nowMs: 0, to, session, code, epoch });
      run();
      return;
    }
    const { link, welcome, unsettled, alone } = connected;
    this.#begun.set(session, link);
    link.start(this.#eventsOf(to, session));
    if (signal.aborted) {
      link.destroy(); // onClosed comes of it
      return;
    }
    const { hasLostCache } = welcome;
    tell({ kind: 'link-up', nowMs: 0, to, session, hasLostCache, unsettled, alone });
    run();
  }

  #eventsOf(from: MemberId, session: Token): LinkEvents<SecondaryMessage> {
    const { tell, run } = this.#options;
    return {
      onMessages: (batch) => {
        for (const message of batch) tell({ kind: 'from-secondary', nowMs: 0, from, session, message });
        run();
      },
      onClosed: () => this.#ended(from, session),
    };
  }

  #ended(to: MemberId, session: Token): void {
    const { tell, run } = this.#options;
    assert(this.#begun.delete(session), `session ${session} ends once`);
    this.#places.delete(session);
    tell({ kind: 'link-down', nowMs: 0, to, session });
    run();
  }
}

export function memberOf(config: GroupConfig | undefined, id: MemberId): GroupMember | undefined {
  return config?.members.find(({ realVolume }) => realVolume === id);
}

function isSamePlace(a: PeerTarget, b: PeerTarget): boolean {
  return a.host === b.host && a.port === b.port;
}

/** In a time that tells nothing about how much of it is right. */
export function isSameKey(given: string, right: string): boolean {
  const [a, b] = [Buffer.from(given), Buffer.from(right)];
  return a.length === b.length && timingSafeEqual(a, b);
}
