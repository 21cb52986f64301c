/** Limits and rhythms of a Replica: defaults, and what tests may set. */

export interface ReplicaLimits {
  /** How long a member that may be in step is waited for after a start, and any connection while it is made. */
  readonly connectMs: number;
  /** A secondary that is asked something, and not heard of for so long, is lost; and one that has not done in it what has come there. */
  readonly ackMs: number;
  /** The same for what may take a disk longer: flushes, zeroes, copies. */
  readonly slowAckMs: number;
  /** What has not come there in this time, though something does, waits for a link that is too slow to be waited for. */
  readonly arriveMs: number;
  /** With fence `status`, how long a change of the record is waited for. */
  readonly recordMs: number;
  /** Between two tries of a connection or a report; doubled up to `retryMaxMs` for members that nobody waits for. */
  readonly retryMs: number;
  readonly retryMaxMs: number;
  /** Background copy: one piece, and how many at once for each member. */
  readonly pieceBytes: number;
  readonly piecesInFlight: number;
  /** Copied bytes after which the member is asked to flush. */
  readonly flushBytes: number;
  readonly hotExtentsMax: number;
  /** An extent that nothing was written to for so long is flushed and unmarked. */
  readonly idleMs: number;
  /** Requests that are held; what comes then is told to look elsewhere. */
  readonly heldMax: number;
  /** A longer pause between two events is one in which this process did not run: nobody else was slow. */
  readonly sleepMs: number;
}

export const DEFAULT_LIMITS: ReplicaLimits = {
  connectMs: 2_000,
  ackMs: 2_000,
  slowAckMs: 10_000,
  arriveMs: 30_000,
  recordMs: 5_000,
  retryMs: 200,
  retryMaxMs: 3_000,
  pieceBytes: 256 * 1024,
  piecesInFlight: 4,
  flushBytes: 64 * 1024 * 1024,
  hotExtentsMax: 1024,
  idleMs: 30_000,
  heldMax: 65_536,
  sleepMs: 500,
};

/** Epochs are counted: one that is so far ahead is no epoch, and taking it would leave the directory behind for ever. */
const EPOCH_LEAP_MAX = 1024;

/** A peer says that `epoch` has begun, and that may be. */
export function isNewerEpoch(epoch: number, known: number): boolean {
  return epoch > known && epoch <= known + EPOCH_LEAP_MAX;
}

/** How long ticks may be put off at a member for which nothing is due: heartbeats and leases of a primary are, at all times. */
export const REST_MS = { primary: 150, secondary: 950 } as const;

/** What is zeroed at once at a member that lacks everything. */
export const WIPE_BYTES = 1024 * 1024 * 1024;
