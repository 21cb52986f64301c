/**
 * What a storage system does with its data folder before it serves: finishes what a crash has interrupted, and looks at the
 * file of every real volume.
 *
 * Invariants
 * 1. No data is removed but that of real volumes whose deletion had begun. A file without a row goes only when nothing has
 *    ever been written to it; any other is left, and named in the log: the metadata may come from an old backup.
 * 2. A real volume is `failed` afterwards when its file is missing, too short, or cannot be used; one that had failed for no other
 *    reason comes back by itself when its file is whole: a start is what an administrator does after that. One that may have
 *    lost writes stays failed: a supervisor starts a storage system without having looked at anything (N3).
 * 3. Trouble with one real volume does not keep the others from being served.
 */

import { RealVolumeId } from '../control-protocol/names.ts';
import { UsageError, VolaryError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import { listFiles, prepareFolder, removeFile } from '../storage/folder-space.ts';
import { Gate } from '../storage/gate.ts';
import { lookAtRawFile } from '../storage/raw-file.ts';
import { checkFile } from './file-check.ts';
import { conditionOf, type RealVolume, type RealVolumeEvent } from './real-volume.ts';
import type { RealVolumeTable } from './real-volume-table.ts';

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
  const { allocatedBytes, trouble } = await checkFile(folder.fileOf(id), sizeBytes);
  if (trouble === undefined) noteEvent(table, id, { kind: 'found-whole' }, log);
  else noteEvent(table, id, { kind: 'failed', cause: 'file-unusable', reason: trouble }, log);
  return allocatedBytes;
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
    if (event.kind === 'failed') after = table.rememberFailure(id, event);
  }
  const [from, to] = [conditionOf(before), conditionOf(after)];
  const fields = { realVolume: id, from, to, cause: after.failure?.reason ?? 'its file is whole' };
  if (to === 'failed')
    log.error(fields, from === to ? 'real volume is failed still' : 'real volume has failed');
  else if (from !== to) log.info(fields, 'real volume is usable again');
}
