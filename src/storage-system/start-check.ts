/**
 * What a storage system does with its data folder before it serves: finishes what a crash has interrupted, and looks at the
 * file of every real volume.
 *
 * Invariants
 * 1. No data is removed but that of real volumes whose deletion had begun. A file without a row goes only when nothing has
 *    ever been written to it; any other is left, and named in the log: the metadata may come from an old backup.
 * 2. A real volume is `failed` afterwards exactly when its file is missing, too short, or cannot be used. So a volume that had
 *    failed comes back by itself, when its file is whole: a start is what an administrator does after a repair. (What
 *    had been written, and not flushed, before a flush failed may be lost; its host was told so then.)
 * 3. Trouble with one real volume does not keep the others from being served.
 */

import { RealVolumeId } from '../control-protocol/names.ts';
import { UsageError, VolaryError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import { listFiles, prepareFolder, removeFile } from '../storage/folder-space.ts';
import { Gate } from '../storage/gate.ts';
import { openSparseFile } from '../storage/open-sparse-file.ts';
import { lookAtRawFile } from '../storage/raw-file.ts';
import { conditionOf, type RealVolume, type RealVolumeEvent } from './real-volume.ts';
import type { RealVolumeTable } from './real-volume-table.ts';
import { tooShort } from './real-volumes.ts';

/** As many as the thread pool has threads: one more would only wait there. */
const AT_ONCE = 64;

const SUFFIX = '.raw';

export interface VolumeFolder {
  readonly path: string;
  fileOf(id: RealVolumeId): string;
}

export function volumeFolder(path: string): VolumeFolder {
  return { path, fileOf: (id) => `${path}/${id}${SUFFIX}` };
}

/** Metadata that is gone, with data that is still there, is no new storage system. @throws UsageError */
export async function refuseLostMetadata(table: string, folder: VolumeFolder): Promise<void> {
  await prepareFolder(folder.path);
  if ((await lookAtRawFile(table)).kind !== 'missing') return;
  const [first] = (await listFiles(folder.path)).filter((name) => idOf(name) !== undefined);
  if (first === undefined) return;
  throw new UsageError(
    'corrupt-metadata',
    `${table} is missing, and ${folder.path} holds real volumes (${first}): put it back from a backup`,
  );
}

/** @returns what each real volume takes in the file system, in bytes */
export async function putInOrder(
  table: RealVolumeTable,
  folder: VolumeFolder,
  log: Log,
): Promise<Map<RealVolumeId, number>> {
  for (const realVolume of [...table.all()]) {
    if (realVolume.isLeaving) await finishRemoval(table, folder, realVolume.id, log);
  }
  await sweep(table, folder, log);
  const allocated = new Map<RealVolumeId, number>();
  const gate = new Gate(AT_ONCE);
  const look = async (realVolume: RealVolume) => {
    const bytes = await check(table, folder, realVolume, log);
    allocated.set(realVolume.id, bytes);
  };
  const there = [...table.all()].filter(({ isLeaving }) => !isLeaving);
  await Promise.all(there.map((realVolume) => gate.run(() => look(realVolume))));
  return allocated;
}

async function finishRemoval(
  table: RealVolumeTable,
  folder: VolumeFolder,
  id: RealVolumeId,
  log: Log,
): Promise<void> {
  try {
    await removeFile(folder.fileOf(id));
    table.remove(id);
    log.info({ realVolume: id, from: 'leaving', to: null }, 'real volume deleted, as had been begun');
  } catch (error) {
    if (!(error instanceof VolaryError)) throw error;
    log.error({ realVolume: id, error: error.message }, 'a real volume that is to be deleted could not be');
  }
}

async function sweep(table: RealVolumeTable, folder: VolumeFolder, log: Log): Promise<void> {
  for (const name of await listFiles(folder.path)) {
    const id = idOf(name);
    if (id !== undefined && table.get(id) !== undefined) continue;
    const path = `${folder.path}/${name}`;
    const look = await lookAtRawFile(path);
    if (id === undefined || look.kind !== 'usable' || look.allocatedBytes > 0) {
      log.warn({ file: path }, 'a file that belongs to no real volume is left alone');
      continue;
    }
    try {
      await removeFile(path);
      log.info({ file: path }, 'removed an empty file that an interrupted making has left');
    } catch (error) {
      if (!(error instanceof VolaryError)) throw error;
      log.error(
        { file: path, error: error.message },
        'a file that belongs to no real volume could not be removed',
      );
    }
  }
}

function idOf(name: string): RealVolumeId | undefined {
  if (!name.endsWith(SUFFIX)) return undefined;
  const parsed = RealVolumeId.safeParse(name.slice(0, -SUFFIX.length));
  return parsed.success ? parsed.data : undefined;
}

/** @returns what it takes in the file system */
async function check(
  table: RealVolumeTable,
  folder: VolumeFolder,
  { id, sizeBytes }: RealVolume,
  log: Log,
): Promise<number> {
  const path = folder.fileOf(id);
  const look = await lookAtRawFile(path);
  if (look.kind !== 'usable') {
    noteEvent(
      table,
      id,
      { kind: 'failed', reason: look.kind === 'missing' ? 'its file is missing' : look.reason },
      log,
    );
    return 0;
  }
  if (look.sizeBytes < sizeBytes) {
    noteEvent(table, id, { kind: 'failed', reason: tooShort(look.sizeBytes, sizeBytes) }, log);
    return look.allocatedBytes;
  }
  try {
    if (look.sizeBytes > sizeBytes) await shorten(path, sizeBytes);
    noteEvent(table, id, { kind: 'found-whole' }, log);
  } catch (error) {
    if (!(error instanceof VolaryError)) throw error;
    noteEvent(table, id, { kind: 'failed', reason: error.message }, log);
  }
  return look.allocatedBytes;
}

/** What lies behind the end has been left by an interrupted resize, and was never part of the volume, or not any more. */
async function shorten(path: string, sizeBytes: number): Promise<void> {
  const file = await openSparseFile(path);
  try {
    await file.resize(sizeBytes);
    await file.flush();
  } finally {
    await file.close();
  }
}

function noteEvent(table: RealVolumeTable, id: RealVolumeId, event: RealVolumeEvent, log: Log): void {
  const before = table.get(id);
  if (before === undefined) return;
  let after = before;
  try {
    after = table.change(id, [event]);
  } catch (error) {
    if (!(error instanceof VolaryError)) throw error;
    log.error({ realVolume: id, error: error.message }, 'the state of a real volume could not be kept');
    if (event.kind === 'failed') after = table.rememberFailure(id, event.reason);
  }
  const [from, to] = [conditionOf(before), conditionOf(after)];
  const fields = { realVolume: id, from, to, cause: after.failure ?? 'its file is whole' };
  if (to === 'failed') log.error(fields, 'real volume has failed');
  else if (from !== to) log.info(fields, 'real volume is usable again');
}
