/**
 * What a command says: its result on stdout (JSON with `--json`, a sentence or a table without), its failure as one line on
 * stderr and, with `--json`, also as a JSON document on stdout.
 *
 * What other processes have said may hold anything: to people it is shown without control characters, so that nothing
 * can play with their terminal.
 */

import { writeSync } from 'node:fs';
import { UsageError } from '../model/errors.ts';

export const ExitStatus = { ok: 0, failure: 1, wrongUsage: 2 } as const;

export interface Failure {
  readonly code: string;
  readonly message: string;
}

/** How long a write waits before it asks again whether the reader of a full pipe has made room. */
const FULL_PIPE_WAIT_MS = 5;

export class Output {
  readonly json: boolean;

  constructor(json: boolean) {
    this.json = json;
  }

  /**
   * @returns whether anybody reads on: that nobody does (`volary … | head`) is no failure.
   * @throws UsageError when it cannot be written.
   */
  result(document: object, sentence: string): boolean {
    return this.#toStdout(this.json ? `${JSON.stringify(document)}\n` : `${printable(sentence)}\n`);
  }

  /** As it is: for terminals. */
  draw(text: string): void {
    this.#toStdout(text);
  }

  /** Something that a person wants to know meanwhile. */
  note(sentence: string): void {
    write(2, `${printable(sentence)}\n`);
  }

  failure({ code, message }: Failure): void {
    const sentence = printable(message.replaceAll(/\s*\n\s*/g, ' '));
    write(2, `error: ${code}: ${sentence}\n`);
    if (this.json) write(1, `${JSON.stringify({ error: { code, message: sentence } })}\n`);
  }

  #toStdout(text: string): boolean {
    const failure = write(1, text);
    if (failure === undefined) return true;
    if (failure.code === 'EPIPE') return false;
    throw new UsageError('io', `standard output cannot be written: ${failure.message}`);
  }
}

/** Control characters, and those that turn the direction of writing, as their numbers; line ends stay. */
export function printable(text: string): string {
  return text.replaceAll(
    /[^\P{Cc}\n]|[\u202a-\u202e\u2066-\u2069]/gu,
    (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`,
  );
}

/** All of it, also into a pipe that takes a piece at a time. */
function write(fd: number, text: string): NodeJS.ErrnoException | undefined {
  let rest: Buffer = Buffer.from(text);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(writeSync(fd, rest));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') return error as NodeJS.ErrnoException;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, FULL_PIPE_WAIT_MS);
    }
  }
  return undefined;
}
