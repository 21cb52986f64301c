/** Groups in which everybody is equal. */

import type { GroupConfig } from '../../../src/control-protocol/copy-groups.ts';
import { assert } from '../../../src/model/errors.ts';
import type { MemberId } from '../../../src/peer-protocol/messages.ts';
import type { ReplicaLimits } from '../../../src/replication/limits.ts';
import { TestGroup } from './group.ts';

export function duplexGroup(
  ids: readonly MemberId[],
  limits: Partial<ReplicaLimits> = {},
  change: Partial<GroupConfig> = {},
): TestGroup {
  const group = new TestGroup(ids, limits, change);
  group.run();
  group.tell();
  group.pass(1000);
  for (const id of ids.slice(1))
    assert(group.pairOf(id) === 'duplex', `${id} is duplex: ${group.pairOf(id)}`);
  return group;
}

export function areEqual(group: TestGroup, ...ids: readonly MemberId[]): boolean {
  const [first, ...others] = ids.map((id) => group.get(id).disk);
  return others.every((disk) => first?.equals(disk) === true);
}
