/**
 * Path: how a gateway reaches the bytes of one segment: a RemoteVolume of the real volume's export at its storage system.
 *
 *   looking -> open     there is a connection
 *   looking -> failed   none within openMs, or none that can be used
 *
 * Invariants
 *  1. The target follows the second information, also while the path is being opened; requests that are unanswered then are sent
 *     again there (remote-volume.ts, R6). The content is the same: the address or the epoch is another, or the primary is
 *     another copy.
 *  2. After a hand-over the primary of before still has in hand what it was sent, and serves it through to the new one: it is
 *     given half of reconnectMs to answer that (remote-volume.ts, R7), so long, since one that was stopped in between goes on
 *     where it was. What is sent again after that, or because a connection broke, is followed by no older copy: the target has a name that
 *     demands so (link-pool.ts, P6). After anything else it is given no time: it may be gone, or hang, and serves nothing through.
 *  3. The export needs as many bytes as the segment, of now, reaches; more may come and go with resizes.
 *  4. A storage system that refuses has a reason that the directory knows: each refusal asks for a fresh look.
 */

import type { Log } from '../model/log.ts';
import { isSameTarget } from '../nbd-client/dial.ts';
import {
  type RemoteOpening,
  type RemoteState,
  type RemoteVolume,
  startRemoteVolume,
} from '../nbd-client/remote-volume.ts';
import type { PlannedSegment } from './second-information.ts';

export interface PathOptions {
  /** Connections of a path. */
  readonly connections: number;
  /** How long requests wait for a storage system that is away. */
  readonly reconnectMs: number;
  readonly log: Log;
  /** A storage system has refused: the second information may be old. */
  readonly onRefused: () => void;
  /** The path leads to another target now. */
  readonly onMoved?: () => void;
}

export class Path {
  /** Rejects with a VolumeError when there is no connection within reconnectMs. */
  readonly opened: Promise<RemoteVolume>;
  readonly #opening: RemoteOpening;
  readonly #giveUp = new AbortController();
  readonly #onMoved: (() => void) | undefined;
  readonly #finishMs: number;
  #segment: PlannedSegment;
  #state: RemoteState = 'reconnecting';
  #volume: RemoteVolume | undefined;

  constructor(segment: PlannedSegment, options: PathOptions) {
    const { connections, reconnectMs, log, onRefused } = options;
    this.#segment = segment;
    this.#onMoved = options.onMoved;
    this.#finishMs = reconnectMs / 2;
    this.#opening = startRemoteVolume({
      ...segment.target,
      connections,
      reconnectMs,
      openMs: reconnectMs,
      signal: this.#giveUp.signal,
      log,
      onState: (state) => {
        this.#state = state;
      },
      onRefused,
    });
    this.#opening.needs(endOf(segment));
    this.opened = this.#opening.volume.then((volume) => {
      this.#volume = volume;
      return volume;
    });
    this.opened.catch(() => undefined); // who waits for it hears of it
  }

  get segment(): PlannedSegment {
    return this.#segment;
  }

  get state(): RemoteState {
    return this.#state;
  }

  /** It has failed for good, and another one in its place might not. */
  get isReplaceable(): boolean {
    return this.#volume?.isReplaceable === true;
  }

  /** The path leads to this segment's target from now on. */
  follow(segment: PlannedSegment): void {
    const from = this.#segment;
    this.#segment = segment;
    this.#opening.needs(endOf(segment));
    if (isSameTarget(from.target, segment.target)) return;
    this.#opening.retarget(segment.target, isHandOver(from, segment) ? this.#finishMs : 0);
    this.#onMoved?.();
  }

  /** No request waits any more; still to be closed. */
  giveUp(reason: string): void {
    this.#giveUp.abort();
    this.#volume?.giveUp(reason);
  }

  /** Waits for what is under way; gives up what is being opened. */
  async close(): Promise<void> {
    this.#giveUp.abort();
    const volume = this.#volume ?? (await this.opened.catch(() => undefined));
    await volume?.close();
  }
}

function isHandOver(from: PlannedSegment, to: PlannedSegment): boolean {
  return to.isHandedOver && to.realVolume !== from.realVolume && to.epoch === from.epoch + 1;
}

/** Where the segment ends in its real volume. */
function endOf({ realOffset, length }: PlannedSegment): number {
  return realOffset + length;
}
