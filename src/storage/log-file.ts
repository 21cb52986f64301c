/**
 * A log in a file that does not fill the disk: when it has reached its size, it becomes `….old` (instead of the one before)
 * and a new one is begun. Its lines are for people: one that cannot be written is lost, and nobody is kept waiting.
 */

import { closeSync, fstatSync, openSync, renameSync, writeSync } from 'node:fs';
import { folderErrorOf } from './errors.ts';

const FILE_MODE = 0o600;

export class LogFile {
  readonly #path: string;
  readonly #bytesMax: number;
  #fd: number | undefined;
  #sizeBytes = 0;

  /** Goes on behind what is there. @throws UsageError */
  constructor(path: string, bytesMax: number) {
    this.#path = path;
    this.#bytesMax = bytesMax;
    try {
      this.#open();
    } catch (error) {
      throw folderErrorOf(error, path);
    }
  }

  append(line: string): void {
    try {
      if (this.#sizeBytes >= this.#bytesMax) this.#turn();
      if (this.#fd !== undefined) this.#sizeBytes += writeSync(this.#fd, `${line}\n`);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).errno === undefined) throw error; // not the disk's answer
    }
  }

  close(): void {
    if (this.#fd === undefined) return;
    closeSync(this.#fd);
    this.#fd = undefined;
  }

  #open(): void {
    this.#fd = openSync(this.#path, 'a', FILE_MODE);
    this.#sizeBytes = fstatSync(this.#fd).size;
  }

  #turn(): void {
    if (this.#fd === undefined) return;
    this.close();
    renameSync(this.#path, `${this.#path}.old`);
    this.#open();
  }
}
