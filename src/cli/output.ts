/**
 * What a command says: its result on stdout (JSON with `--json`, a sentence without), its failure as one line on
 * stderr and, with `--json`, also as a JSON document on stdout.
 */

import { writeSync } from 'node:fs';
import { UsageError } from '../model/errors.ts';

export const ExitStatus = { ok: 0, failure: 1, wrongUsage: 2 } as const;

export interface Failure {
  readonly code: string;
  readonly message: string;
}

export class Output {
  readonly #json: boolean;

  constructor(json: boolean) {
    this.#json = json;
  }

  /** @throws UsageError when it cannot be written; that nobody reads it (`volary … | head`) is no failure. */
  result(document: object, sentence: string): void {
    const failure = write(1, this.#json ? JSON.stringify(document) : sentence);
    if (failure === undefined || failure.code === 'EPIPE') return;
    throw new UsageError('io', `standard output cannot be written: ${failure.message}`);
  }

  /** Something that a person wants to know meanwhile. */
  note(sentence: string): void {
    write(2, sentence);
  }

  failure({ code, message }: Failure): void {
    const sentence = message.replaceAll(/\s*\n\s*/g, ' ');
    write(2, `error: ${code}: ${sentence}`);
    if (this.#json) write(1, JSON.stringify({ error: { code, message: sentence } }));
  }
}

function write(fd: number, line: string): NodeJS.ErrnoException | undefined {
  try {
    writeSync(fd, `${line}\n`);
    return undefined;
  } catch (error) {
    return error as NodeJS.ErrnoException;
  }
}
