import { expect, test } from 'vitest';
import { assert, UsageError, VolaryError, VolumeError } from '../../../src/model/errors.ts';

test('errors carry a code, a cause and, where there is one, a place', () => {
  const cause = new Error('EIO');
  const error = new VolumeError('io', 'cannot read', { cause, offset: 4096 });
  expect(error).toBeInstanceOf(VolaryError);
  expect({ ...error, name: error.name, cause: error.cause }).toEqual({
    name: 'VolumeError',
    code: 'io',
    offset: 4096,
    cause,
  });
  expect(new VolumeError('io', 'cannot read').offset).toBeUndefined();
  expect(new UsageError('locked', 'stop the other one', { cause })).toMatchObject({
    name: 'UsageError',
    code: 'locked',
  });
});

test('a failed assertion is no VolaryError: it is our mistake and must not be answered to a peer', () => {
  expect(() => assert(true, 'fine')).not.toThrow();
  expect(() => assert(false, 'impossible')).toThrow(new Error('assertion failed: impossible'));
});
