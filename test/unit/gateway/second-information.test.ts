import { describe, expect, test } from 'vitest';
import { SecondInformation } from '../../../src/control-protocol/catalog.ts';
import {
  type Information,
  informationOf,
  planOf,
  recordsOf,
  reduce,
} from '../../../src/gateway/second-information.ts';
import { volumeOf } from '../../support/cluster/records.ts';
import { realVolumeId, StorageStandIn } from '../../support/cluster/storage-stand-in.ts';

const CLUSTER = '0d3f1f4e-5c83-4a3e-9d43-111111111111';
const OTHER = '0d3f1f4e-5c83-4a3e-9d43-222222222222';
const MIB = 1024 * 1024;

function records(revision: number, volumes: object[], storage = ['east-1']): SecondInformation {
  return SecondInformation.parse({
    clusterId: CLUSTER,
    revision,
    volumes,
    storage: storage.map((name, index) => {
      const record = new StorageStandIn(name).record as { nbd: object };
      return { ...record, nbd: { host: '10.0.0.1', port: 1000 + index }, peer: { host: 'a', port: 1 } };
    }),
  });
}

const one = { storage: 'east-1', realVolume: realVolumeId(1), length: MIB };
const two = { storage: 'east-2', realVolume: realVolumeId(2), length: MIB, realOffset: 4096, epoch: 7 };

function information(volumes: object[], storage?: string[]): Information {
  return informationOf(records(5, volumes, storage));
}

describe('reduce', () => {
  const known = information([volumeOf('a', [one])]);
  const nothing = { volumes: [], removedVolumes: [], storage: [], removedStorage: [] };

  test('1: a snapshot is all there is, whatever was known', () => {
    const snapshot = records(3, [volumeOf('b', [one])]);
    const next = reduce(known, CLUSTER, { kind: 'snapshot', information: snapshot });
    expect(next).toEqual({ kind: 'next', information: informationOf(snapshot) });
    expect(reduce(undefined, undefined, { kind: 'snapshot', information: snapshot })).toEqual(next);
  });

  test('2: the snapshot of another cluster is refused', () => {
    const snapshot = { ...records(9, []), clusterId: OTHER };
    expect(reduce(known, CLUSTER, { kind: 'snapshot', information: snapshot })).toEqual({
      kind: 'wrong-cluster',
      clusterId: OTHER,
    });
  });

  test('a change adds, replaces and removes; what was known stays as it was', () => {
    const [volume] = records(0, [volumeOf('b', [one])]).volumes;
    const change = { ...nothing, revision: 6, volumes: [volume as never], removedVolumes: ['a' as never] };
    const next = reduce(known, CLUSTER, { kind: 'change', change });
    expect(next).toMatchObject({ kind: 'next', information: { revision: 6 } });
    if (next.kind === 'next') expect([...next.information.volumes.keys()]).toEqual(['b']);
    expect([...known.volumes.keys()]).toEqual(['a']);
  });

  test('3: a change that is not newer, or comes before any snapshot, is nothing', () => {
    for (const revision of [4, 5]) {
      const change = { ...nothing, revision, removedVolumes: ['a' as never] };
      expect(reduce(known, CLUSTER, { kind: 'change', change }).kind).toBe('nothing');
      expect(reduce(undefined, CLUSTER, { kind: 'change', change }).kind).toBe('nothing');
    }
  });

  test('as records and back it is the same', () => {
    expect(informationOf(recordsOf(known))).toEqual(known);
  });
});

describe('planOf', () => {
  const both = ['east-1', 'east-2'];

  test('the primaries, with epoch and key, at the addresses of their storage systems', () => {
    const planning = planOf(information([volumeOf('a', [one, two])], both), 'a');
    expect(planning).toMatchObject({
      kind: 'plan',
      plan: {
        sizeBytes: 2 * MIB,
        segments: [
          {
            offset: 0,
            target: {
              address: { host: '10.0.0.1', port: 1000 },
              exportName: `${one.realVolume}@1.${'0123456789abcdef'.repeat(2)}`,
            },
          },
          {
            offset: MIB,
            realOffset: 4096,
            target: {
              address: { port: 1001 },
              exportName: `${two.realVolume}@7.${'0123456789abcdef'.repeat(2)}`,
            },
          },
        ],
      },
    });
  });

  test('while it is being resized, a volume is served at the size that it says', () => {
    const growing = volumeOf('a', [one, two], { state: 'resizing', sizeBytes: MIB });
    expect(planOf(information([growing], both), 'a')).toMatchObject({
      kind: 'plan',
      plan: { sizeBytes: MIB, segments: [{ length: MIB }] },
    });
    const grown = volumeOf('a', [one, two], { state: 'resizing', sizeBytes: MIB + 4096 });
    expect(planOf(information([grown], both), 'a')).toMatchObject({
      plan: { segments: [{ length: MIB }, { length: 4096 }] },
    });
  });

  test('what is being made or deleted is not to be used; what is not known, not known', () => {
    for (const state of ['creating', 'deleting']) {
      expect(planOf(information([volumeOf('a', [one], { state })]), 'a').kind).toBe('unusable');
    }
    expect(planOf(information([]), 'a').kind).toBe('unknown');
    expect(planOf(undefined, 'a').kind).toBe('unknown');
  });

  test('a segment whose storage system is not known, or too few segments: incomplete', () => {
    expect(planOf(information([volumeOf('a', [one, two])]), 'a').kind).toBe('incomplete');
    expect(planOf(information([volumeOf('a', [one], { sizeBytes: 2 * MIB })]), 'a').kind).toBe('incomplete');
    expect(planOf(information([volumeOf('a', [])]), 'a').kind).toBe('incomplete');
  });
});
