/**
 * The exports of a storage system: each real volume twice, as real-volume-export.ts says. The bare name is for looking and
 * checking, and reads only; with the epoch and the key it is for use.
 *
 * Of a copy group, the member that is primary of the epoch is for use, and the others are not ('shutdown', so that a gateway looks
 * again); for looking are all. Passages are taken by a member to which the one before has handed over, in the same life of its process, until
 * somebody demands to be alone: that is answered when nothing comes through a passage any more, nor ever will in this epoch.
 *
 * Whoever has the key gets in, and nobody else; LIST shows the bare names alone. What a real volume is in a state for is
 * asked again whenever something may have changed meanwhile (RealVolumes.way).
 */

import type { RealVolumeId } from '../control-protocol/names.ts';
import { parseRealVolumeExport, type RealVolumeExport } from '../control-protocol/real-volume-export.ts';
import { ControlError, VolumeError } from '../model/errors.ts';
import { type ExportDirectory, ExportRefused, type NbdExport } from '../nbd/server.ts';
import { isSameKey } from './member-links.ts';
import type { Members } from './members.ts';
import { conditionOf } from './real-volume.ts';
import type { RealVolumes, Way } from './real-volumes.ts';

export function exportsOf(realVolumes: RealVolumes, members: Members): ExportDirectory {
  return {
    list: () => listOf(realVolumes),
    find: (name) => find(realVolumes, members, name),
  };
}

function* listOf(realVolumes: RealVolumes): Generator<{ name: string; description: string }> {
  for (const { id, state, volume } of realVolumes.views()) {
    if (state === 'failed' || state === 'access-prohibited') continue;
    const whose = volume === null ? 'unused' : `of volume ${volume}`;
    yield { name: id, description: `real volume, ${whose}, read-only without its key` };
  }
}

async function find(realVolumes: RealVolumes, members: Members, name: string): Promise<NbdExport> {
  const wanted = parseRealVolumeExport(name);
  if (wanted === undefined) {
    throw new ExportRefused(
      'unknown',
      'exports of a storage system are real volumes: rv- and 16 hexadecimal digits, and @EPOCH.KEY for use; ' +
        'virtual volumes are exported by gateways',
    );
  }
  const admitted = () => admit(realVolumes, members, wanted);
  let way: Way;
  try {
    way = await realVolumes.way(wanted, admitted);
    if (wanted.access?.manner === 'alone') {
      members.endPassages(wanted.realVolume, wanted.access.epoch);
      await realVolumes.endPassages(wanted.realVolume);
      way = await realVolumes.way(wanted, admitted);
    }
  } catch (error) {
    throw refusalOf(error, wanted);
  }
  const { door, file } = way;
  const isForUse = wanted.access !== undefined;
  const { realVolume } = wanted;
  return {
    name: realVolume, // without the key, which no log and no other client is to see
    description: isForUse ? 'real volume' : 'real volume, read-only',
    volume: door,
    readOnly: !isForUse,
    gathers: isForUse && members.isMember(realVolume),
    users: {
      begun: () => file.begin(),
      ended: () => {
        file.end();
        if (isForUse) members.unused(realVolume);
      },
    },
  };
}

/** Throws ExportRefused when the real volume, as it is now, is not for who asks. */
function admit(
  realVolumes: RealVolumes,
  members: Members,
  { realVolume: id, access }: RealVolumeExport,
): void {
  const realVolume = realVolumes.get(id);
  if (realVolume === undefined) throw new ExportRefused('unknown', `there is no real volume ${id} here`);
  const { epoch, accessKey, failure } = realVolume;
  if (access !== undefined && !isSameKey(access.key, accessKey)) {
    throw new ExportRefused('policy', `that is not the access key of ${id}: ask the directory for it`);
  }
  if (access !== undefined && access.epoch < epoch) {
    throw new ExportRefused(
      'shutdown',
      `epoch ${access.epoch} of ${id} is over: ask the directory who is primary`,
    );
  }
  if (access !== undefined && access.epoch > epoch) {
    throw new ExportRefused('policy', `${id} has epoch ${epoch}, and has not heard of ${access.epoch}`);
  }
  switch (conditionOf(realVolume)) {
    case 'failed':
      throw new ExportRefused('policy', `${id} has failed: ${failure?.reason}`);
    case 'access-prohibited':
      throw new ExportRefused('policy', `access to ${id} is prohibited`);
    default:
  }
  if (access !== undefined) admitToGroup(members, id, access);
}

function admitToGroup(
  members: Members,
  id: RealVolumeId,
  { epoch, manner }: NonNullable<RealVolumeExport['access']>,
): void {
  const isPassage = manner === 'passage';
  if (!members.isServed(id, epoch)) {
    // Who has handed over may have been told of it before this one has been: it is to try again.
    const code = isPassage ? 'policy' : 'shutdown';
    throw new ExportRefused(code, `${id} is not primary: ask the directory who is`);
  }
  if (isPassage && !members.takesPassages(id, epoch)) {
    throw new ExportRefused('shutdown', `${id} takes nothing through other members any more`);
  }
}

function refusalOf(error: unknown, { realVolume }: RealVolumeExport): unknown {
  if (error instanceof VolumeError && error.code === 'shutdown')
    return new ExportRefused('shutdown', error.message, { cause: error });
  if (error instanceof VolumeError || error instanceof ControlError) {
    return new ExportRefused('policy', `${realVolume} cannot be opened: ${error.message}`, { cause: error });
  }
  return error;
}
