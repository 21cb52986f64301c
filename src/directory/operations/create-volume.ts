/**
 *     running  make      volume creating   make all real volumes      -> done, volume ready
 *                                          one failed                 -> undoing
 *     undoing  unmake    volume deleting   delete all real volumes    -> failed, volume forgotten, garbage
 */

import type { VolumeRecord } from '../../control-protocol/catalog.ts';
import type { RealVolumeId } from '../../control-protocol/names.ts';
import {
  deletion,
  type Effect,
  finished,
  leftOver,
  mainError,
  realVolumesOf,
  type Turn,
  type Workflow,
} from './workflow.ts';

export const createVolume: Workflow = {
  effects({ operation, volume }) {
    // Nobody can be using what has never been ready.
    if (operation.step === 'unmake') return realVolumesOf(volume).map((each) => deletion(each, true));
    return makings(volume, volume.segments, 'limited');
  },

  turn({ operation, volume }, outcomes, now): Turn {
    const error = mainError(outcomes);
    if (operation.step === 'unmake') {
      return {
        volume: null,
        operation: finished(operation, now, operation.error),
        garbage: leftOver(volume, outcomes),
        events: [
          {
            kind: 'volume.create-failed',
            subject: volume.name,
            text: `volume ${volume.name} was not created: ${operation.error?.message}`,
            details: { operation: operation.id, code: operation.error?.code ?? null },
          },
        ],
      };
    }
    if (error !== undefined) {
      return {
        volume: { ...volume, state: 'deleting' },
        operation: { ...operation, state: 'undoing', step: 'unmake', error },
        garbage: [],
        events: [],
      };
    }
    const files = new Map(outcomes.map(({ effect, file }) => [effect.realVolume, file]));
    return {
      volume: {
        ...volume,
        segments: withFiles(volume.segments, files),
        state: 'ready',
        operation: null,
      },
      operation: finished(operation, now),
      garbage: [],
      events: [
        {
          kind: 'volume.created',
          subject: volume.name,
          text: `volume ${volume.name} has been created, of ${volume.sizeBytes} bytes`,
          details: { operation: operation.id, sizeBytes: volume.sizeBytes },
        },
      ],
    };
  },
};

export function makings(
  { name }: VolumeRecord,
  segments: VolumeRecord['segments'],
  patience: Effect['patience'],
): Effect[] {
  return segments.flatMap(({ length, epoch, copies }) =>
    copies.map(({ storage, realVolume, realOffset, accessKey }): Effect => {
      const sizeBytes = realOffset + length;
      const body = { sizeBytes, volume: name, epoch, accessKey };
      return { kind: 'make', storage, realVolume, sizeBytes, patience, body };
    }),
  );
}

export function withFiles(
  segments: VolumeRecord['segments'],
  files: ReadonlyMap<RealVolumeId, string | undefined>,
): VolumeRecord['segments'] {
  return segments.map((segment) => ({
    ...segment,
    copies: segment.copies.map((copy) => ({ ...copy, file: files.get(copy.realVolume) ?? copy.file })),
  }));
}
