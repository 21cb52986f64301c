/**
 * What a conformance case works with: connections to the server under test, a part of the disk to write to, and
 * words for what was seen. A case returns one observation in words; the protocol document permits some of them.
 */
import { Buffer } from 'node:buffer';
import { setTimeout as sleep } from 'node:timers/promises';
import { Errno, type HeaderStyle, Option, OptionReply } from '../../src/nbd-server-protocol/constants.ts';
import {
  type ExportInfo,
  Handshake,
  type OptionAnswer,
  optionReplyName,
  readOptionAnswer,
} from '../support/nbd-handshake.ts';
import { type Answer, Lacks, Session, type SessionOptions } from '../support/nbd-session.ts';
import {
  ClosedByPeer,
  NoAnswer,
  optionRequest,
  type RequestFields,
  Violation,
  Wire,
} from '../support/wire.ts';
import { disk, EXPORT, OTHER_EXPORT, pattern, type Target } from './servers.ts';

export interface Case {
  readonly name: string;
  /** The heading of the protocol document, or of the extension, that asks for it. */
  readonly section: string;
  /** The observations that the document permits. */
  readonly permits: readonly string[];
  observe(lab: Lab): Promise<string>;
}

/** An option that nobody knows: its answer proves that server and client agree on where messages begin. */
const PROBE_OPTION = 0x5afe;

export const allStyles: readonly HeaderStyle[] = ['simple', 'structured', 'extended'];
export const chunkStyles: readonly HeaderStyle[] = ['structured', 'extended'];

export class Lab {
  readonly target: Target;
  readonly exportName = EXPORT;
  readonly #wires: Wire[] = [];
  #healthy: Session | undefined;
  #scratch: number = disk.scratch;
  #diedBetweenCases = 0;

  constructor(target: Target) {
    this.target = target;
  }

  /** How often a server was found dead, or deaf, although the case before had ended well. */
  get diedBetweenCases(): number {
    return this.#diedBetweenCases;
  }

  async wire(): Promise<Wire> {
    const wire = await Wire.connect(this.target.address);
    this.#wires.push(wire);
    return wire;
  }

  async handshake(clientFlags?: number): Promise<Handshake> {
    const handshake = await Handshake.open(this.target.address, clientFlags);
    this.#wires.push(handshake.wire);
    return handshake;
  }

  /** A handshake that has asked for its header style. */
  async styled(style: HeaderStyle): Promise<Handshake> {
    const handshake = await this.handshake();
    if (!(await handshake.style(style))) throw new Lacks(`${style} headers`);
    return handshake;
  }

  /** A session in the transmission phase. */
  async session(style: HeaderStyle, options: Omit<SessionOptions, 'style'> = {}): Promise<Session> {
    return await Session.go(await this.handshake(), { exportName: EXPORT, ...options, style });
  }

  async readOnlySession(style: HeaderStyle, contexts: readonly string[] = []): Promise<Session> {
    const handshake = await Handshake.open(this.target.readOnlyAddress);
    this.#wires.push(handshake.wire);
    return await Session.go(handshake, { exportName: EXPORT, contexts, style });
  }

  /** The name of a second export of the same server. */
  get otherExport(): string {
    if (!this.target.hasOtherExport) throw new Lacks('a second export');
    return OTHER_EXPORT;
  }

  /** The session behind a successful GO that a case has sent itself. */
  transmission(
    handshake: Handshake,
    info: ExportInfo,
    style: HeaderStyle,
    contexts: readonly { id: number; name: string }[] = [],
  ): Session {
    return new Session(handshake.wire, {
      style,
      sizeBytes: info.sizeBytes!,
      flags: info.flags!,
      contexts: new Map(contexts.map(({ id, name }) => [id, name])),
      maximumPayload: info.blockSize?.maximumPayload ?? 33_554_432,
      chunkBytesMax: info.blockSize?.maximumPayload ?? Number.POSITIVE_INFINITY,
    });
  }

  /** A part of the disk that no other case uses; it reads as zeroes and is a hole. Aligned to 1 MiB. */
  scratch(length: number): number {
    const offset = this.#scratch;
    this.#scratch += Math.ceil(length / 1_048_576) * 1_048_576;
    if (this.#scratch > disk.scratchEnd) throw new Error('the scratch part of the disk is used up');
    return offset;
  }

  /** Runs a case, closes what it opened, and looks whether another client is still served. */
  async run(one: Case): Promise<string> {
    if (this.#healthy !== undefined && (await this.#health()) !== 'served') this.#diedBetweenCases += 1;
    this.#healthy ??= await Session.open(this.target.address, { exportName: EXPORT });
    let seen: string;
    try {
      seen = await words(() => one.observe(this));
    } finally {
      for (const wire of this.#wires.splice(0)) wire.destroy();
    }
    const health = await this.#health();
    return health === 'served' ? seen : `${seen}; ${health}`;
  }

  /** Whether a client that has done nothing wrong is still served. */
  async #health(): Promise<string> {
    const seen = await words(async () => {
      const answer = await this.#healthy!.read(disk.data, 512);
      return answer.data.equals(pattern(disk.data, 512)) ? 'served' : 'another client reads wrong data';
    });
    if (seen === 'served') return seen;
    this.#healthy!.wire.destroy();
    this.#healthy = undefined;
    await sleep(200); // a process that has just crashed may not be known as dead yet
    return (await this.target.revive()) > 0 ? 'the server died' : `another client: ${seen}`;
  }

  close(): void {
    this.#healthy?.wire.destroy();
  }
}

/** What happened, in words: also a close, a silence, a breach of the document or a feature that is not there. */
export async function words(action: () => Promise<string>): Promise<string> {
  try {
    return await action();
  } catch (error) {
    if (error instanceof ClosedByPeer) return 'closed';
    if (error instanceof NoAnswer) return 'no answer';
    if (error instanceof Violation) return `violation: ${error.message}`;
    if (error instanceof Lacks) return `lacks ${error.message}`;
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ECONNREFUSED' || code === 'ECONNRESET') return `connecting: ${code}`;
    throw error;
  }
}

/** The name of an NBD error value, or 'ok'. */
export function errorName(error: number): string {
  if (error === Errno.none) return 'ok';
  for (const [name, number] of Object.entries(Errno)) if (number === error) return name;
  return `error ${error}`;
}

export const finalName = (answer: OptionAnswer): string => optionReplyName(answer.final);

/** Sends one option and says how it ended; when it was answered, also whether the connection is in step. */
export async function optionOutcome(
  handshake: Handshake,
  code: number,
  data?: Uint8Array,
  describe: (answer: OptionAnswer) => string = finalName,
): Promise<string> {
  const answer = await handshake.option(code, data);
  return await optionInStep(handshake, describe(answer));
}

/** `seen`, with what is wrong when the next option is not understood. */
export async function optionInStep(handshake: Handshake, seen: string): Promise<string> {
  const next = await words(async () => finalName(await handshake.option(PROBE_OPTION)));
  return next === 'ERR_UNSUP' ? seen : `${seen}, then ${next}`;
}

/**
 * Sends an option that claims more data than ever comes, some data, and the end of the stream; says how the server
 * took it. 'closed' without an answer includes servers that waited for the rest.
 */
export async function claimOutcome(
  handshake: Handshake,
  code: number,
  claimedBytes: number,
  sent: Uint8Array,
): Promise<string> {
  const { wire } = handshake;
  await wire.sendAll(optionRequest(code, sent, { length: claimedBytes }));
  wire.halfClose();
  return await words(async () => finalName(await readOptionAnswer(wire, code)));
}

/** Sends one request and says how it ended; when it was answered, also whether the connection is in step. */
export async function requestOutcome(
  session: Session,
  fields: RequestFields,
  describe: (answer: Answer) => string = (answer) => errorName(answer.error),
): Promise<string> {
  const seen = await words(async () => describe(await session.ask(fields)));
  if (seen === 'closed' || seen === 'no answer' || seen.startsWith('violation')) return seen;
  return await requestInStep(session, seen);
}

/** `seen`, with what is wrong when a plain read is not answered rightly. */
export async function requestInStep(session: Session, seen: string): Promise<string> {
  const next = await words(async () => {
    const answer = await session.read(disk.data + 512, 512);
    if (answer.error !== 0) return errorName(answer.error);
    return answer.data.equals(pattern(disk.data + 512, 512)) ? 'in step' : 'wrong data';
  });
  return next === 'in step' ? seen : `${seen}, then ${next}`;
}

/** GO on a handshake made by hand, with whatever contexts it has selected. */
export async function goWith(
  lab: Lab,
  handshake: Handshake,
  style: HeaderStyle,
  contexts: readonly { id: number; name: string }[] = [],
  exportName: string = EXPORT,
): Promise<Session> {
  const { final, info } = await handshake.choose(Option.go, exportName);
  if (final !== OptionReply.ack) throw new Violation(`GO answered ${optionReplyName(final)}`);
  return lab.transmission(handshake, info, style, contexts);
}

/** Without the figure: it differs from run to run. */
export function memoryWord(grownBytes: number, mostBytes: number): string {
  return grownBytes < mostBytes ? 'memory bounded' : 'memory not bounded';
}

/** 'right' when the bytes are what the disk has there from the start. */
export function dataWord(data: Buffer, expected: Buffer): string {
  return data.equals(expected) ? 'right data' : `wrong data (${data.length} bytes)`;
}

/** The disk's first bytes around the border of data and hole at 1 MiB. */
export function aroundBorder(length: number): { offset: number; expected: Buffer } {
  const half = length / 2;
  const expected = Buffer.alloc(length);
  pattern(disk.hole - half, half).copy(expected);
  return { offset: disk.hole - half, expected };
}
