/** What control-protocol/catalog.ts promises of a VolumeRecord, asserted of each that is written. */

import type { VolumeRecord } from '../control-protocol/catalog.ts';
import { type RealVolumeId, SEGMENT_ALIGNMENT_BYTES } from '../control-protocol/names.ts';
import { assert } from '../model/errors.ts';

export function assertVolume(
  volume: VolumeRecord,
  before: VolumeRecord | undefined,
  /** Name of the volume that has it, in the catalog as it is. */
  ownerOf: (realVolume: RealVolumeId) => string | undefined,
): void {
  const { name, segments } = volume;
  let endBytes = 0;
  const realVolumes = new Set<RealVolumeId>();
  for (const { offset, length, copies } of segments) {
    assert(offset === endBytes, `1: the segments of ${name} follow one another without gaps`);
    assert(length > 0, `1: the segments of ${name} hold something`);
    assert(offset % SEGMENT_ALIGNMENT_BYTES === 0, `2: the inner borders of ${name} are aligned`);
    assert(
      copies.filter(({ role }) => role === 'primary').length === 1,
      `2: each segment of ${name} has one primary`,
    );
    const systems = new Set(copies.map(({ storage }) => storage));
    assert(systems.size === copies.length, `5: the copies of ${name} are on different storage systems`);
    for (const { realVolume, role, pair, reason } of copies) {
      assert(
        (role === 'primary') === (pair === 'simplex') && (pair === 'suspended') === (reason !== null),
        `5: ${realVolume} of ${name} has a pair that it can have`,
      );
      const owner = ownerOf(realVolume);
      assert(
        !realVolumes.has(realVolume) && (owner === undefined || owner === name),
        `3: ${realVolume} belongs to one segment of one volume`,
      );
      realVolumes.add(realVolume);
    }
    endBytes = offset + length;
  }
  if (volume.state === 'ready' || volume.state === 'resizing') {
    assert(endBytes === volume.sizeBytes, `1: the segments of ${name} cover it`);
  }
  assert(volume.state === 'ready' || volume.operation !== null, `${name} changes by an operation`);
  for (const { offset, epoch } of before?.segments ?? []) {
    const now = segments.find((segment) => segment.offset === offset);
    assert(now === undefined || now.epoch >= epoch, `4: no epoch of ${name} becomes smaller`);
  }
}
