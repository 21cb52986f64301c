/**
 * The cluster that this gateway has joined, and what it has been told of it, in its data folder:
 *
 *     DATA/cluster.json              { format, clusterId }: written once
 *     DATA/second-information.json   { format, information }: replaced at once when it changes, but for SAVE_EVERY_MS after that
 *
 * A damaged second information costs nothing but the time until the directory tells it again, so it is merely reported. The
 * identity of the cluster is another matter: without it a gateway could be led into a cluster with other volumes of the same names.
 */

import { jsonObjectOf } from '../base/json-object.ts';
import { SecondInformation } from '../control-protocol/catalog.ts';
import { Identity } from '../control-protocol/names.ts';
import { ControlError, UsageError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import { readWholeFile, replaceFile } from '../storage/replace-file.ts';
import { type Information, informationOf, recordsOf } from './second-information.ts';

const FORMAT = 1;
const CLUSTER_FILE = 'cluster.json';
const INFORMATION_FILE = 'second-information.json';
const CLUSTER_BYTES_MAX = 4096;
const INFORMATION_BYTES_MAX = 256 * 1024 * 1024;
/** Changes that follow one another quickly are written together; the first of them at once, since a user has been told that it is made. */
const SAVE_EVERY_MS = 200;
const SAVE_AGAIN_MS = 5_000;

/** Of a DataFolder. */
interface Folder {
  file(name: string): string;
}

export class Membership {
  readonly #folder: Folder;
  readonly #log: Log;
  #clusterId: string | undefined;
  /** The newest that is not on disk. */
  #unsaved: Information | undefined;
  /** Runs for a moment after each save. */
  #timer: NodeJS.Timeout | undefined;
  #saving: Promise<void> | undefined;
  #joining: Promise<void> = Promise.resolve();

  private constructor(folder: Folder, log: Log, clusterId: string | undefined) {
    this.#folder = folder;
    this.#log = log;
    this.#clusterId = clusterId;
  }

  /** @throws UsageError, StoreError */
  static async open(folder: Folder, log: Log): Promise<Membership> {
    const path = folder.file(CLUSTER_FILE);
    const bytes = await readWholeFile(path, CLUSTER_BYTES_MAX);
    if (bytes === undefined) return new Membership(folder, log, undefined);
    const document = jsonObjectOf(bytes);
    if (typeof document.format === 'number' && document.format > FORMAT) {
      throw new UsageError(
        'newer-format',
        `${path} was written by a later version of Volary: use that version`,
      );
    }
    const clusterId = Identity.safeParse(document.clusterId);
    if (document.format !== FORMAT || !clusterId.success) {
      throw new UsageError(
        'corrupt-metadata',
        `${path} is damaged: put it back from a backup, or give another folder`,
      );
    }
    return new Membership(folder, log, clusterId.data);
  }

  /** undefined: none yet. */
  get clusterId(): string | undefined {
    return this.#clusterId;
  }

  /**
   * Joins the first cluster that is met, durably.
   * @throws ControlError 'wrong-cluster' for every other one; StoreError
   */
  async join(clusterId: string): Promise<void> {
    if (this.#clusterId === undefined) {
      const turn = this.#joining.then(() => this.#joinFirst(clusterId));
      this.#joining = turn.catch(() => undefined);
      await turn;
    }
    if (this.#clusterId === clusterId) return;
    const text = `this gateway belongs to cluster ${this.#clusterId}, and that directory to ${clusterId}`;
    throw new ControlError('wrong-cluster', text);
  }

  async #joinFirst(clusterId: string): Promise<void> {
    if (this.#clusterId !== undefined) return;
    await replaceFile(this.#folder.file(CLUSTER_FILE), bytesOf({ format: FORMAT, clusterId }));
    this.#clusterId = clusterId;
    this.#log.info({ clusterId }, 'joined a cluster');
  }

  /** What was known when the gateway ran last; undefined: nothing that can be used. */
  async load(): Promise<Information | undefined> {
    const path = this.#folder.file(INFORMATION_FILE);
    const bytes = await readWholeFile(path, INFORMATION_BYTES_MAX);
    if (bytes === undefined) return undefined;
    const document = jsonObjectOf(bytes);
    const parsed = SecondInformation.safeParse(document.information);
    const isOurs = parsed.success && parsed.data.clusterId === this.#clusterId;
    if (document.format === FORMAT && isOurs) return informationOf(parsed.data);
    const reason = parsed.success ? 'it is of another format, or another cluster' : parsed.error.message;
    this.#log.warn({ path, reason }, 'the second information cannot be used: waiting for the directory');
    return undefined;
  }

  /** Has it on disk as soon as possible. */
  keep(information: Information): void {
    this.#unsaved = information;
    this.#saveWhenDue();
  }

  /** Writes what is not on disk yet. */
  async close(): Promise<void> {
    await this.#saving;
    clearTimeout(this.#timer);
    if (this.#unsaved !== undefined) await this.#save(this.#unsaved);
    clearTimeout(this.#timer);
  }

  #saveWhenDue(): void {
    if (this.#unsaved === undefined || this.#timer !== undefined || this.#saving !== undefined) return;
    this.#saving = this.#save(this.#unsaved).finally(() => {
      this.#saving = undefined;
    });
  }

  async #save(information: Information): Promise<void> {
    const path = this.#folder.file(INFORMATION_FILE);
    this.#unsaved = undefined;
    let pauseMs = SAVE_EVERY_MS;
    try {
      await replaceFile(path, bytesOf({ format: FORMAT, information: recordsOf(information) }));
    } catch (error) {
      this.#log.warn({ path, error: String(error) }, 'the second information was not saved');
      this.#unsaved ??= information;
      pauseMs = SAVE_AGAIN_MS;
    }
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#saveWhenDue();
    }, pauseMs);
  }
}

function bytesOf(document: object): Buffer {
  return Buffer.from(`${JSON.stringify(document)}\n`);
}
