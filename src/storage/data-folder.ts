/**
 * DataFolder: where one role of one name keeps what is its own.
 *
 *     DATA/lock            flock'ed by the process that uses the folder, which has its pid in it
 *     DATA/identity.json   { format, role, name, id, createdAt }: whose folder this is
 *
 * Invariants
 * 1. Nothing in the folder is changed by a process that does not hold the lock, and nothing at all in a folder that
 *    is not known to be a data folder, or empty.
 * 2. A folder gets its identity once, before anything else is kept in it. So a folder with a damaged identity and
 *    nothing else holds nothing, and gets a new one; with anything else it is refused.
 *
 * Where a folder lies tells it from its copies, by the inode of its lock. Within one life of the machine that can be relied on everywhere. After
 * it only on file systems that keep inode numbers and times of birth: elsewhere (overlayfs, NFS, FUSE) a folder that nobody has touched
 * may look as if it had been moved. There `file` is null, and who has to know whether it is a copy has to ask: it is never refused for that alone.
 * A file system that was cloned as a whole is the same to all of this.
 */

import { randomUUID } from 'node:crypto';
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  statfsSync,
  writeSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { jsonObjectOf } from '../base/json-object.ts';
import { EWOULDBLOCK, LOCK_EX, LOCK_NB, lockFile } from '../base/syscalls.ts';
import { assert, UsageError } from '../model/errors.ts';
import { readBootId } from './boot-id.ts';
import { folderErrorOf } from './errors.ts';
import { prepareFolder } from './folder-space.ts';
import { NEW_SUFFIX, readWholeFile, replaceFile } from './replace-file.ts';

const FORMAT = 1;
const IDENTITY_BYTES_MAX = 4096;
const PID_BYTES_MAX = 16;
const NAME_BYTES_MAX = 255; // of every Linux file system

const LOCK = 'lock';
const IDENTITY = 'identity.json';
const OWN_FILES: readonly string[] = [LOCK, IDENTITY, `${IDENTITY}${NEW_SUFFIX}`];

const ROLES = {
  storage: 'storage system',
  directory: 'directory',
  gateway: 'gateway',
  supervisor: 'supervisor',
} as const;

export type DataFolderRole = keyof typeof ROLES;

export interface DataFolderOwner {
  readonly role: DataFolderRole;
  readonly name: string;
}

/** Where a folder lies, however it is called: a copy lies elsewhere. */
export interface FolderPlace {
  /** The lock that is held: who has held it before, has ended. Of this life of the machine. */
  readonly lock: string;
  /** The same folder, also after the machine has been started again; null where that cannot be known. */
  readonly file: string | null;
}

export interface DataFolder {
  /** Absolute. */
  readonly path: string;
  /** A UUID, made with the folder. */
  readonly id: string;
  readonly place: FolderPlace;
  /** The path of a file of that plain name in the folder. */
  file(name: string): string;
  /** Lets go of the lock; the files in the folder are to be closed by then. */
  close(): void;
}

/** Makes the folder when missing and takes it for this process alone. Throws UsageError. */
export async function openDataFolder(path: string, owner: DataFolderOwner): Promise<DataFolder> {
  const folder = resolve(path);
  await prepareFolder(folder);
  await refuseSomebodysOwn(folder);
  const lock = takeLock(folder);
  try {
    const identity = await ownIdentity(folder, owner);
    return new LockedFolder(folder, identity.id, lock);
  } catch (error) {
    closeSync(lock);
    throw folderErrorOf(error, folder);
  }
}

/** Before a lock file is made in it. What another process makes meanwhile comes after its identity. */
async function refuseSomebodysOwn(folder: string): Promise<void> {
  try {
    const [other] = others(folder);
    if (other !== undefined && (await readIdentity(folder)) === undefined) throw inUse(folder, other);
  } catch (error) {
    throw folderErrorOf(error, folder);
  }
}

class LockedFolder implements DataFolder {
  readonly path: string;
  readonly id: string;
  readonly place: FolderPlace;
  #lock: number | undefined;

  constructor(path: string, id: string, lock: number) {
    this.path = path;
    this.id = id;
    this.place = placeOf(lock, path);
    this.#lock = lock;
  }

  file(name: string): string {
    const isPlain = name !== '' && name !== '.' && name !== '..' && !/[/\0]/.test(name);
    assert(isPlain && Buffer.byteLength(name) <= NAME_BYTES_MAX, `${JSON.stringify(name)} is no file name`);
    assert(!OWN_FILES.includes(name), `${name} is the data folder's own`);
    return join(this.path, name);
  }

  close(): void {
    if (this.#lock === undefined) return;
    closeSync(this.#lock);
    this.#lock = undefined;
  }
}

// ── lock ───────────────────────────────────────────────────────────────────────────────────────────────────

function takeLock(folder: string): number {
  const path = join(folder, LOCK);
  let fd: number;
  try {
    fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600);
  } catch (error) {
    throw folderErrorOf(error, path);
  }
  try {
    const result = lockFile(fd, LOCK_EX | LOCK_NB);
    if (result === -EWOULDBLOCK) {
      throw new UsageError('locked', `${folder} is in use by ${holderOf(path)}: stop that one first`);
    }
    if (result !== 0) {
      const text = `${folder} cannot be locked (errno ${-result}): use a file system that has locks`;
      throw new UsageError('io', text);
    }
    writePid(fd);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw folderErrorOf(error, path);
  }
}

/** For people only: a full disk, which may take no pid, must not keep a process from its folder. */
function writePid(fd: number): void {
  try {
    ftruncateSync(fd, 0); // so that no other process is named if the rest fails
    writeSync(fd, `${process.pid}\n`, 0);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOSPC' && code !== 'EDQUOT') throw error;
  }
}

function holderOf(path: string): string {
  const pid = /^(\d+)\n$/.exec(readFileSync(path, 'latin1').slice(0, PID_BYTES_MAX))?.[1];
  return pid === undefined ? 'another process' : `process ${pid}`;
}

/** Longer than the clocks of file systems stand still. */
const CLOCK_MS = 30;

/** By `f_type` of statfs: ext2 to 4, XFS, Btrfs, ZFS, F2FS, bcachefs; and tmpfs, where nothing outlives the machine's life unless it is a copy. */
const KEEPS_INODES: readonly bigint[] = [
  0xef53n,
  0x58465342n,
  0x9123683en,
  0x2fc12fc1n,
  0xf2f52010n,
  0xca451a4en,
  0x01021994n,
];

/** What is known of a lock. */
export interface LockFacts {
  readonly dev: bigint;
  readonly ino: bigint;
  readonly birthtimeNs: bigint;
  readonly ctimeNs: bigint;
  /** Of its file system. */
  readonly type: bigint;
}

function placeOf(lock: number, folder: string): FolderPlace {
  const { type } = statfsSync(folder, { bigint: true });
  const facts = (): LockFacts => ({ ...fstatSync(lock, { bigint: true }), type });
  const { birthtimeNs, ctimeNs } = facts();
  if (birthtimeNs === ctimeNs) {
    // It may have been made just now: once more, when the clock of the file system has gone on, to see whether the time of birth stays what it was.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, CLOCK_MS);
    writePid(lock);
  }
  return placeFrom(readBootId(), facts());
}

export function placeFrom(bootId: string, { dev, ino, birthtimeNs, ctimeNs, type }: LockFacts): FolderPlace {
  // Where the system does not tell it, Node says 0, or when the file has been changed last.
  const isBirthKnown = birthtimeNs > 0n && birthtimeNs !== ctimeNs;
  const isKept = isBirthKnown && KEEPS_INODES.includes(type);
  return { lock: `${bootId}:${dev}:${ino}`, file: isKept ? `${ino}:${birthtimeNs}` : null };
}

// ── identity ───────────────────────────────────────────────────────────────────────────────────────────────

interface Identity extends DataFolderOwner {
  readonly format: typeof FORMAT;
  readonly id: string;
  readonly createdAt: string;
}

/** The folder's identity, made when it has none. The lock is held. */
async function ownIdentity(folder: string, owner: DataFolderOwner): Promise<Identity> {
  const found = await readIdentity(folder);
  if (found === undefined) {
    const [other] = others(folder);
    if (other !== undefined) throw inUse(folder, other);
    const { role, name } = owner;
    const createdAt = new Date().toISOString();
    const made: Identity = { format: FORMAT, role, name, id: randomUUID(), createdAt };
    await replaceFile(join(folder, IDENTITY), Buffer.from(`${JSON.stringify(made, null, 2)}\n`));
    return made;
  }
  if (found.role !== owner.role || found.name !== owner.name) {
    const [theirs, ours] = [found, owner].map(({ role, name }) => `${ROLES[role]} ${name}`);
    const text = `${folder} is the data folder of the ${theirs}, not of the ${ours}: give another folder`;
    throw new UsageError('wrong-data-folder', text);
  }
  return found;
}

/** Undefined when there is none, or a damaged one that has nothing to vouch for. */
async function readIdentity(folder: string): Promise<Identity | undefined> {
  const path = join(folder, IDENTITY);
  const bytes = await readWholeFile(path, IDENTITY_BYTES_MAX);
  if (bytes === undefined) return undefined;
  const value = jsonObjectOf(bytes);
  const { format } = value;
  if (typeof format === 'number' && Number.isInteger(format) && format > FORMAT) {
    const text = `${folder} was written by a later version of Volary (format ${format}): use that version`;
    throw new UsageError('newer-format', text);
  }
  if (isIdentity(value)) return value;
  if (others(folder).length === 0) return undefined;
  const text = `${path} is damaged: put it back from a backup, or give another folder`;
  throw new UsageError('corrupt-metadata', text);
}

function isIdentity(value: object): value is Identity {
  const { format, role, name, id, createdAt } = value as Record<string, unknown>;
  if (format !== FORMAT || typeof role !== 'string' || !Object.hasOwn(ROLES, role)) return false;
  return [name, id, createdAt].every((text) => typeof text === 'string' && text !== '');
}

function inUse(folder: string, other: string): UsageError {
  const text = `${folder} is no data folder, and not empty (there is ${JSON.stringify(other)}): give another folder`;
  return new UsageError('wrong-data-folder', text);
}

/** What is in the folder beside what is this module's own. */
function others(folder: string): string[] {
  return readdirSync(folder).filter((name) => !OWN_FILES.includes(name) && name !== 'lost+found');
}
