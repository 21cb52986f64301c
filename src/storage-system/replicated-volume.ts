/**
 * ReplicatedVolume: a member of a copy group as its hosts see it. What changes blocks goes through the group's rules (Requests);
 * what is read comes from this member's own file, as long as it may serve at all.
 *
 *   hold     requests wait               here     they are served
 *   refuse   they fail as 'shutdown', so that their gateway looks for the primary and sends them again
 *   through  they are sent on to the member that has become primary
 *
 * Invariants
 *  1. A buffer is not the caller's again before this member has done with it: Requests see to that for the file, and what a link
 *     still has of it then is nothing that anybody waits for.
 *  2. What waited for an epoch is never served in a later one, but sent through: its sender may have sent it again meanwhile, and
 *     something newer behind it.
 *  3. What is read is answered only when this member may serve before and after it was read.
 *  4. A request that the rules gave back ('shutdown') is sent on when it is through that hosts are served by then: doing it
 *     twice is doing it once.
 *  5. What has been sent through is sent no other way from here: the first copy might come later, and behind something newer. When it is not
 *     known what has become of it there, it fails as 'shutdown', and its gateway sees to it that it comes no more (exports.ts).
 */

import { assert, VolaryError, VolumeError, type VolumeErrorCode } from '../model/errors.ts';
import type { BlockSizes, Capabilities, Extent, Volume, WriteZeroesOptions } from '../model/volume.ts';
import type { Request } from '../replication/effects.ts';

/** The rules of the group, as far as a host's requests go. */
export interface Requests {
  /** A read may be served this instant, from the file. */
  servesNow(): boolean;
  /** Resolves when it is answered and this member has done with its payload; rejects with a VolumeError. */
  request(request: Request): Promise<void>;
}

/** How hosts are served. */
export type Hosts = 'here' | 'hold' | 'refuse' | { readonly through: () => Promise<OtherMember> };

/** Another member's export. */
export interface OtherMember extends Volume {
  /** Waits for nothing any more: all requests fail. */
  giveUp(reason: string): void;
}

export interface ReplicatedVolumeOptions {
  /** This member's own. */
  readonly file: Volume;
  readonly requests: Requests;
}

/** Of one write to the members; longer ones are made of several. */
const WRITE_BYTES_MAX = 1024 * 1024;
/** The same for what has no payload: it keeps others off its range while it lasts. */
const RANGE_BYTES_MAX = 64 * 1024 * 1024;
const PIECES_AT_ONCE = 4;

export class ReplicatedVolume implements Volume {
  readonly blockSizes: BlockSizes;
  readonly capabilities: Capabilities;
  readonly #file: Volume;
  readonly #requests: Requests;
  #hosts: Hosts = 'hold';
  #epoch = 0;
  #waiting = Promise.withResolvers<void>();
  /** The volume that hosts are served through, once somebody has asked for it. */
  #remote: Promise<OtherMember> | undefined;
  /** Those of before that have not answered all. */
  readonly #left = new Set<Promise<OtherMember>>();
  #underWay = 0;
  #isClosing = false;
  readonly #closed = Promise.withResolvers<void>();

  constructor({ file, requests }: ReplicatedVolumeOptions) {
    this.#file = file;
    this.#requests = requests;
    this.blockSizes = file.blockSizes;
    this.capabilities = { ...file.capabilities, resize: false };
  }

  get sizeBytes(): number {
    return this.#file.sizeBytes;
  }

  /** How hosts are served from now on. */
  serve(epoch: number, hosts: Hosts): void {
    this.#hosts = hosts;
    this.#epoch = epoch;
    this.letGo();
    if (hosts === 'hold') return;
    this.#waiting.resolve();
    this.#waiting = Promise.withResolvers();
  }

  /** Lets go of the other member, until somebody needs it. What it has been asked it may answer still. */
  letGo(): void {
    const remote = this.#remote;
    this.#remote = undefined;
    if (remote !== undefined) void this.#leave(remote);
  }

  async #leave(remote: Promise<OtherMember>): Promise<void> {
    this.#left.add(remote);
    const [opened] = await Promise.allSettled([remote]); // who asked for it has the failure
    if (opened.status === 'fulfilled') await opened.value.close();
    this.#left.delete(remote);
  }

  readNow(offset: number, target: Buffer, start: number, length: number): boolean {
    this.#check(offset, length);
    if (this.#hosts !== 'here' || !this.#requests.servesNow()) return false;
    return this.#file.readNow(offset, target, start, length);
  }

  writeNow(offset: number, _source: Buffer, _start: number, length: number): boolean {
    this.#check(offset, length);
    return false; // the other members are a journey away
  }

  read(offset: number, target: Buffer, start: number, length: number): Promise<void> {
    return this.#look(offset, length, (volume) => volume.read(offset, target, start, length));
  }

  cache(offset: number, length: number): Promise<void> {
    return this.#look(offset, length, (volume) => volume.cache(offset, length));
  }

  blockStatus(offset: number, length: number, extentsMax: number): Promise<Extent[]> {
    return this.#look(offset, length, (volume) => volume.blockStatus(offset, length, extentsMax));
  }

  mayHaveHoles(offset: number, length: number): boolean {
    return this.#hosts !== 'here' || this.#file.mayHaveHoles(offset, length);
  }

  write(offset: number, source: Buffer, start: number, length: number, fua: boolean): Promise<void> {
    try {
      this.#check(offset, length);
    } catch (error) {
      return Promise.reject(error);
    }
    return inPieces(length, WRITE_BYTES_MAX, (at, pieceLength) => {
      const payload = source.subarray(start + at, start + at + pieceLength);
      const request = { kind: 'write', offset: offset + at, length: pieceLength, fua, payload } as const;
      return this.#change(request, (volume) =>
        volume.write(offset + at, source, start + at, pieceLength, fua),
      );
    });
  }

  async flush(): Promise<void> {
    this.#check(0, 0);
    await this.#change({ kind: 'flush' }, (volume) => volume.flush());
  }

  async trim(offset: number, length: number, fua: boolean): Promise<void> {
    this.#check(offset, length);
    await inPieces(length, RANGE_BYTES_MAX, (at, pieceLength) => {
      const request = { kind: 'trim', offset: offset + at, length: pieceLength, fua } as const;
      return this.#change(request, (volume) => {
        if (volume.capabilities.trim) return volume.trim(offset + at, pieceLength, fua);
        return volume.writeZeroes(offset + at, pieceLength, { fua, noHole: false, fast: false });
      });
    });
  }

  async writeZeroes(offset: number, length: number, options: WriteZeroesOptions): Promise<void> {
    this.#check(offset, length);
    const { fua, noHole, fast } = options;
    // A hole is made in time wherever there are holes; whether space can be had so is each file system's secret.
    if (fast && noHole) throw new VolumeError('not-supported', 'copies may have to write these zeroes');
    await inPieces(length, RANGE_BYTES_MAX, (at, pieceLength) => {
      const request = { kind: 'zero', offset: offset + at, length: pieceLength, fua, noHole } as const;
      return this.#change(request, (volume) =>
        volume.writeZeroes(offset + at, pieceLength, { ...options, fast: false }),
      );
    });
  }

  async resize(): Promise<void> {
    this.#check(0, 0);
    throw new VolumeError('not-supported', 'the size of a copy is changed by its storage system alone');
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    this.#waiting.resolve();
    this.letGo();
    for (const remote of this.#left) void giveUp(remote);
    if (this.#underWay > 0) await this.#closed.promise;
  }

  // --- requests --------------------------------------------------------------------------------------------

  /** What changes nothing: from the file, when the rules admit it. */
  async #look<T>(offset: number, length: number, operation: (volume: Volume) => Promise<T>): Promise<T> {
    this.#check(offset, length);
    const epoch = this.#epoch;
    return this.#run(async () => {
      if (!this.#requests.servesNow()) await this.#requests.request({ kind: 'read' });
      const found = await operation(this.#file);
      // It may have taken long: by now the file may be what another primary makes of it.
      if (!this.#requests.servesNow()) await this.#requests.request({ kind: 'read' });
      this.#refuseWhenOver(epoch);
      return found;
    }, operation);
  }

  /** The path of every write: without a detour while hosts are served here. */
  #change(request: Request, through: (volume: Volume) => Promise<void>): Promise<void> {
    const here = () => this.#requests.request(request);
    if (this.#hosts !== 'here') return this.#run(here, through);
    const epoch = this.#epoch;
    this.#underWay += 1;
    return here().then(this.#ended, (error: unknown) => {
      if (!isShutdown(error) || this.#hosts === 'here') {
        this.#ended();
        throw error;
      }
      return this.#run(here, through, epoch).finally(this.#ended);
    });
  }

  readonly #ended = (): void => {
    this.#underWay -= 1;
    if (this.#underWay === 0 && this.#isClosing) setImmediate(this.#closed.resolve); // behind the answers
  };

  /** `epoch`: of when it came. */
  async #run<T>(
    here: () => Promise<T>,
    through: (volume: Volume) => Promise<T>,
    epoch = this.#epoch,
  ): Promise<T> {
    this.#underWay += 1;
    try {
      for (;;) {
        const hosts = this.#hosts;
        if (hosts === 'here') {
          this.#refuseWhenOver(epoch);
          try {
            return await here();
          } catch (error) {
            // Given back by the rules: the next round sees what has become of the hosts.
            if (!isShutdown(error) || this.#hosts === 'here') throw error;
          }
        } else if (hosts === 'hold') {
          await this.#waiting.promise;
        } else if (hosts === 'refuse') {
          throw new VolumeError('shutdown', 'another member of the copy group is its primary now');
        } else {
          return await sentThrough(await this.#remoteBy(hosts.through), through);
        }
        if (this.#isClosing) throw new VolumeError('shutdown', 'the volume is being closed');
      }
    } finally {
      this.#ended();
    }
  }

  async #remoteBy(open: () => Promise<OtherMember>): Promise<OtherMember> {
    this.#remote ??= open();
    const remote = this.#remote;
    try {
      return await remote;
    } catch (error) {
      if (this.#remote === remote) this.#remote = undefined;
      if (!(error instanceof VolaryError)) throw error;
      const message = `the member that is primary now cannot be reached from here: ${error.message}`;
      throw new VolumeError('shutdown', message, { cause: error });
    }
  }

  #refuseWhenOver(epoch: number): void {
    if (this.#epoch > epoch && epoch > 0) {
      throw new VolumeError('shutdown', 'a newer epoch has begun while this request waited');
    }
  }

  #check(offset: number, length: number): void {
    if (this.#isClosing) throw new VolumeError('shutdown', 'the volume is being closed');
    if (!(offset >= 0 && length >= 0)) assert(false, `[${offset}, ${offset} + ${length}) is no range`);
    if (offset + length <= this.sizeBytes) return;
    throw new VolumeError('invalid', `the volume ends at ${this.sizeBytes}`, { offset: this.sizeBytes });
  }
}

function isShutdown(error: unknown): boolean {
  return error instanceof VolumeError && error.code === 'shutdown';
}

/** What these say is not what has become of it there, or is said again when it is asked for there. */
const IN_DOUBT: readonly VolumeErrorCode[] = ['io', 'failed', 'shutdown'];

async function sentThrough<T>(remote: OtherMember, operation: (volume: Volume) => Promise<T>): Promise<T> {
  try {
    return await operation(remote);
  } catch (error) {
    if (!(error instanceof VolumeError) || !IN_DOUBT.includes(error.code)) throw error;
    const message = `the member that is primary now is to be asked: ${error.message}`;
    throw new VolumeError('shutdown', message, { cause: error });
  }
}

async function giveUp(remote: Promise<OtherMember>): Promise<void> {
  const [opened] = await Promise.allSettled([remote]);
  if (opened.status === 'fulfilled') opened.value.giveUp('this member is being closed');
}

/** All pieces, a few at the same time; rejects when none is under way any more. */
function inPieces(
  length: number,
  most: number,
  run: (at: number, length: number) => Promise<void>,
): Promise<void> {
  if (length === 0) return Promise.resolve();
  return length <= most ? run(0, length) : allPieces(length, most, run);
}

async function allPieces(
  length: number,
  most: number,
  run: (at: number, length: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < length) {
      const at = next;
      next += most;
      await run(at, Math.min(most, length - at));
    }
  };
  const outcomes = await Promise.allSettled(Array.from({ length: PIECES_AT_ONCE }, worker));
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}
