/** Member with rules that the test makes up: what it does when they fail. */

import { expect, onTestFinished, test } from 'vitest';
import type { GroupConfig, HandOver } from '../../../src/control-protocol/copy-groups.ts';
import type { Event, Output } from '../../../src/replication/effects.ts';
import { openSparseFile } from '../../../src/storage/open-sparse-file.ts';
import { Member, type Rules } from '../../../src/storage-system/member.ts';
import type { MemberFolder } from '../../../src/storage-system/member-disk.ts';
import { memoryFolder } from '../../support/disk.ts';
import { silentLog } from '../../support/log.ts';
import { idOf, MiB } from '../../support/storage-system.ts';

const NOTHING: Output = { persist: undefined, effects: [] };

const folder: MemberFolder = {
  begun: () => undefined,
  settled: () => undefined,
  writeJournal: () => undefined,
  forgetUnsettled: async () => undefined,
  mark: async () => undefined,
  unmark: async () => undefined,
  loseCache: () => undefined,
  addMember: () => undefined,
  setBits: () => undefined,
  clearBits: () => undefined,
  forgetMember: () => undefined,
};

const unasked = () => Promise.reject(new Error('not asked for here'));

async function subject(step: Rules['step']): Promise<Member> {
  const disk = memoryFolder();
  const file = await openSparseFile(`${disk.path}/file`, { sizeBytes: MiB });
  onTestFinished(async () => {
    await file.close();
    await disk.remove();
  });
  return new Member({
    ...{ id: idOf(1), file, folder, clusterId: () => undefined, connect: unasked, log: silentLog },
    rules: { step, servesNow: () => false },
    directory: { report: unasked, renew: unasked, discarded: unasked, giveWay: () => undefined },
    keep: async () => undefined,
    onServe: () => undefined,
    onFailed: () => undefined,
  });
}

/** What would have ended the process. */
function nextCrash(): Promise<Error> {
  const others = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  return new Promise((resolve) => {
    process.once('uncaughtException', (error) => {
      for (const other of others) process.on('uncaughtException', other);
      resolve(error);
    });
  });
}

const ASKS: readonly (readonly [string, (member: Member) => Promise<unknown>])[] = [
  ['configure', (member) => member.configure({ members: [] } as unknown as GroupConfig)],
  ['hand-over', (member) => member.handOver({ epoch: 2, to: idOf(2) } as unknown as HandOver)],
  ['request', (member) => member.request({ kind: 'read' })],
];

test.each(ASKS)(
  'an assertion of the rules within %s ends the process, and is no answer',
  async (kind, ask) => {
    const steps: Event['kind'][] = [];
    const member = await subject((event) => {
      steps.push(event.kind);
      if (event.kind === kind) throw new Error('assertion failed: as it should');
      return NOTHING;
    });
    const crash = nextCrash();
    let isAnswered = false;
    const answered = (): void => {
      isAnswered = true;
    };
    ask(member).then(answered, answered);
    expect((await crash).message).toBe('assertion failed: as it should');
    expect(isAnswered).toBe(false);
    member.tick();
    expect(steps).toEqual([kind]); // nothing is begun on top of it
  },
);

test('whoever stops it, and whoever does so meanwhile, hears when nothing is under way any more', async () => {
  const payload = Buffer.alloc(MiB);
  const member = await subject((event) => {
    if (event.kind !== 'request') return NOTHING;
    const operation = { kind: 'write', offset: 0, length: MiB, fua: true, payload } as const;
    return { persist: undefined, effects: [{ kind: 'apply', token: 1, operation, isJournaled: true }] };
  });
  const request = member.request({ kind: 'flush' });
  await Promise.all([
    member.stop(),
    member.stop(),
    expect(request).rejects.toMatchObject({ code: 'shutdown' }),
  ]);
  await member.stop();
});
