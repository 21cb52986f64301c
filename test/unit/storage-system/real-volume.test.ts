/** S3: every state with every event. */

import { describe, expect, test } from 'vitest';
import { VolumeName } from '../../../src/control-protocol/names.ts';
import { ControlError } from '../../../src/model/errors.ts';
import {
  type Condition,
  changed,
  conditionOf,
  type Failure,
  type RealVolume,
  type RealVolumeEvent,
  transitions,
} from '../../../src/storage-system/real-volume.ts';
import { epochOf, idOf, KEY } from '../../support/storage-system.ts';

const data = VolumeName.parse('data');
const other = VolumeName.parse('other');

const whole: RealVolume = {
  ...{ id: idOf(1), sizeBytes: 4096, volume: data, epoch: epochOf(3), accessKey: KEY },
  ...{ access: 'allowed', failure: null, isLeaving: false, createdAt: '2026-11-21T00:00:00.000Z' },
};

const missing: Failure = { cause: 'file-unusable', reason: 'its file is missing' };
const lost: Failure = { cause: 'writes-lost', reason: 'a flush failed' };

/** Records of each state; several where a state remembers what it came from. */
const records: Record<Condition, readonly RealVolume[]> = {
  unused: [{ ...whole, volume: null }],
  'in-use': [whole],
  'access-prohibited': [
    { ...whole, access: 'prohibited' },
    { ...whole, access: 'prohibited', volume: null },
  ],
  failed: [
    { ...whole, failure: missing },
    { ...whole, failure: missing, access: 'prohibited' },
    { ...whole, failure: missing, volume: null },
    { ...whole, failure: lost },
  ],
  leaving: [
    { ...whole, isLeaving: true },
    { ...whole, isLeaving: true, failure: missing },
  ],
};

const events: { [Kind in RealVolumeEvent['kind']]: RealVolumeEvent & { kind: Kind } } = {
  given: { kind: 'given', volume: data },
  released: { kind: 'released' },
  prohibited: { kind: 'prohibited' },
  allowed: { kind: 'allowed' },
  'epoch-raised': { kind: 'epoch-raised', epoch: epochOf(4) },
  resized: { kind: 'resized', sizeBytes: 8192 },
  failed: { kind: 'failed', cause: 'writes-lost', reason: 'a flush failed' },
  'found-whole': { kind: 'found-whole' },
  accepted: { kind: 'accepted' },
  'removal-begun': { kind: 'removal-begun' },
};

/** Where each record of `records` comes to, in that order; or that it is refused. */
const expected: Record<Condition, Record<RealVolumeEvent['kind'], readonly Condition[] | 'refused'>> = {
  unused: {
    given: ['in-use'],
    released: ['unused'],
    prohibited: ['access-prohibited'],
    allowed: ['unused'],
    'epoch-raised': ['unused'],
    resized: ['unused'],
    failed: ['failed'],
    'found-whole': ['unused'],
    accepted: ['unused'],
    'removal-begun': ['leaving'],
  },
  'in-use': {
    given: ['in-use'],
    released: ['unused'],
    prohibited: ['access-prohibited'],
    allowed: ['in-use'],
    'epoch-raised': ['in-use'],
    resized: ['in-use'],
    failed: ['failed'],
    'found-whole': ['in-use'],
    accepted: ['in-use'],
    'removal-begun': ['leaving'],
  },
  'access-prohibited': {
    given: ['access-prohibited', 'access-prohibited'],
    released: ['access-prohibited', 'access-prohibited'],
    prohibited: ['access-prohibited', 'access-prohibited'],
    allowed: ['in-use', 'unused'],
    'epoch-raised': ['access-prohibited', 'access-prohibited'],
    resized: ['access-prohibited', 'access-prohibited'],
    failed: ['failed', 'failed'],
    'found-whole': ['access-prohibited', 'access-prohibited'],
    accepted: ['access-prohibited', 'access-prohibited'],
    'removal-begun': ['leaving', 'leaving'],
  },
  failed: {
    given: 'refused',
    released: ['failed', 'failed', 'failed', 'failed'],
    prohibited: ['failed', 'failed', 'failed', 'failed'],
    allowed: ['failed', 'failed', 'failed', 'failed'],
    'epoch-raised': ['failed', 'failed', 'failed', 'failed'],
    resized: 'refused',
    failed: ['failed', 'failed', 'failed', 'failed'],
    'found-whole': ['in-use', 'access-prohibited', 'unused', 'failed'],
    accepted: ['in-use', 'access-prohibited', 'unused', 'in-use'],
    'removal-begun': ['leaving', 'leaving', 'leaving', 'leaving'],
  },
  leaving: {
    given: 'refused',
    released: 'refused',
    prohibited: 'refused',
    allowed: 'refused',
    'epoch-raised': 'refused',
    resized: 'refused',
    failed: ['leaving', 'leaving'],
    'found-whole': ['leaving', 'leaving'],
    accepted: 'refused',
    'removal-begun': ['leaving', 'leaving'],
  },
};

const conditions = Object.keys(transitions) as Condition[];
const kinds = Object.keys(events) as RealVolumeEvent['kind'][];

describe.each(conditions)('S3: %s', (condition) => {
  test('the records of it are in that state', () => {
    for (const record of records[condition]) expect(conditionOf(record)).toBe(condition);
  });

  test.each(kinds)('%s', (kind) => {
    const wanted = expected[condition][kind];
    records[condition].forEach((record, index) => {
      if (wanted === 'refused') {
        expect(() => changed(record, events[kind])).toThrow(expect.objectContaining({ code: 'conflict' }));
      } else expect(conditionOf(changed(record, events[kind]))).toBe(wanted[index]);
    });
  });

  test('an epoch never becomes smaller, and is known to be over before anything else is said', () => {
    for (const record of records[condition]) {
      const older = () => changed(record, { kind: 'epoch-raised', epoch: epochOf(2) });
      const code = condition === 'leaving' ? 'conflict' : 'stale-epoch';
      expect(older).toThrow(expect.objectContaining({ code }));
    }
  });
});

test('S3: what belongs to a volume is not given to another before it has been released', () => {
  const taken = () => changed(whole, { kind: 'given', volume: other });
  expect(taken).toThrow(ControlError);
  expect(taken).toThrow(expect.objectContaining({ code: 'conflict' }));
  expect(changed(changed(whole, { kind: 'released' }), { kind: 'given', volume: other }).volume).toBe(other);
});

test('S3, N3: the first reason of a failure is kept, and the worse cause', () => {
  const once = changed(whole, { kind: 'failed', ...missing });
  expect(changed(once, { kind: 'failed', cause: 'file-unusable', reason: 'second' })).toBe(once);
  const worse = changed(once, { kind: 'failed', ...lost });
  expect(worse.failure).toEqual({ cause: 'writes-lost', reason: missing.reason });
  expect(changed(worse, { kind: 'failed', ...missing })).toBe(worse);
});
