import { expect, test } from 'vitest';
import type { LeaseRequest, LeaseVerdict, PairReport } from '../../../src/control-protocol/copy-groups.ts';
import { StorageName } from '../../../src/control-protocol/names.ts';
import { ControlError } from '../../../src/model/errors.ts';
import { type GroupApi, GroupDirectory } from '../../../src/storage-system/group-directory.ts';
import { type LogLine, recordingLog, silentLog } from '../../support/log.ts';
import { epochOf, idOf } from '../../support/storage-system.ts';

const report: PairReport = {
  ...{ primary: idOf(1), epoch: epochOf(3), member: idOf(2), pair: 'duplex', reason: null, pairRevision: 4 },
};

const ASKER = { storage: StorageName.parse('a'), acknowledged: 3, lives: [] };

function subject(api: Partial<GroupApi>) {
  const refuse = () => Promise.reject(new Error('not asked for here'));
  const whole = { reportPair: refuse, renewLeases: refuse, reportDiscard: refuse, ...api };
  return new GroupDirectory({ api: whole, asker: () => ASKER, log: silentLog });
}

const ANSWERS: Record<number, LeaseVerdict> = { 2: 'over', 3: 'later' };

test('questions about epochs go together, in one request, and each has its own answer', async () => {
  const requests: LeaseRequest[] = [];
  const directory = subject({
    renewLeases: async (request) => {
      requests.push(request);
      return { answers: request.leases.map(({ epoch }) => ANSWERS[epoch] ?? 'granted') };
    },
  });
  directory.giveWay(idOf(2));
  const answers = await Promise.all([1, 2, 3].map((n) => directory.renew(idOf(n), n)));
  expect(answers).toEqual(['granted', 'stale-epoch', 'unreachable']);
  expect(requests).toEqual([
    { asker: ASKER, leases: [1, 2, 3].map((n) => ({ realVolume: idOf(n), epoch: n })), givingWay: [idOf(2)] },
  ]);
  expect(await directory.renew(idOf(1), 1)).toBe('granted');
  expect(requests[1]?.givingWay).toEqual([]);
});

test('what is asked while a request is under way goes with the next one', async () => {
  const requests: LeaseRequest[] = [];
  const first = Promise.withResolvers<{ answers: LeaseVerdict[] }>();
  const directory = subject({
    renewLeases: (request) => {
      requests.push(request);
      return requests.length === 1 ? first.promise : Promise.resolve({ answers: ['granted', 'granted'] });
    },
  });
  const one = directory.renew(idOf(1), 1);
  while (requests.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  const others = [directory.renew(idOf(2), 1), directory.renew(idOf(3), 1)];
  first.resolve({ answers: ['granted'] });
  expect(await Promise.all([one, ...others])).toEqual(['granted', 'granted', 'granted']);
  expect(requests.map(({ leases }) => leases.length)).toEqual([1, 2]);
});

test('a directory that does not answer, or cannot now, is unreachable; one that knows a newer epoch says so', async () => {
  const hanging = subject({
    reportPair: (_, signal) =>
      new Promise((_resolve, reject) => {
        signal?.addEventListener('abort', () => reject(new ControlError('unreachable', 'no answer')));
      }),
  });
  expect(await hanging.report(report)).toEqual({ outcome: 'unreachable' });
  for (const [code, outcome] of [
    ['stale-epoch', 'stale-epoch'],
    ['conflict', 'unreachable'],
    ['unavailable', 'unreachable'],
  ] as const) {
    const refusing = subject({ reportPair: () => Promise.reject(new ControlError(code, 'no')) });
    expect(await refusing.report(report)).toEqual({ outcome });
  }
  const recording = subject({ reportPair: async () => ({ revision: 9, pairRevision: 5 }) });
  expect(await recording.report(report)).toEqual({ outcome: 'recorded', pairRevision: 5 });
});

test('what the directory refuses for ever is asked ever more rarely, and told once; another word is asked at once', async () => {
  const lines: LogLine[] = [];
  const asked: string[] = [];
  const api: GroupApi = {
    reportPair: ({ pair }) => {
      asked.push(pair);
      return Promise.reject(new ControlError('not-found', 'there is no such pair'));
    },
    renewLeases: () => Promise.reject(new ControlError('bad-request', 'what is that?')),
    reportDiscard: () => Promise.reject(new Error('not asked for here')),
  };
  const directory = new GroupDirectory({ api, asker: () => ASKER, log: recordingLog(lines) });
  for (let n = 0; n < 100; n++) {
    expect(await directory.report(report)).toEqual({ outcome: 'unreachable' });
    if (n < 10) expect(await directory.renew(idOf(1), 1)).toBe('unreachable');
  }
  expect(asked.length).toBeLessThan(10);
  const before = asked.length;
  const other = { ...report, pair: 'suspended', reason: 'unreachable' } as const;
  expect(await directory.report(other)).toEqual({ outcome: 'unreachable' });
  expect(asked.slice(before)).toEqual(['suspended']);
  expect(
    lines
      .filter(({ level }) => level === 'warn')
      .map(({ code }) => code)
      .toSorted(),
  ).toEqual(['bad-request', 'not-found']);
});

test('stop ends a report of what was discarded, too', async () => {
  const asked = Promise.withResolvers<AbortSignal | undefined>();
  const directory = subject({
    reportDiscard: (_, signal) => {
      asked.resolve(signal);
      return new Promise((_resolve, reject) => {
        signal?.addEventListener('abort', () => reject(new ControlError('unreachable', 'no answer')));
      });
    },
  });
  const told = directory.discarded({ primary: idOf(1), epoch: epochOf(3), member: idOf(2), bytes: 5 });
  await asked.promise;
  directory.stop();
  await told;
});

test('stop answers what is asked', async () => {
  const directory = subject({});
  const renewed = directory.renew(idOf(1), 1);
  directory.stop();
  expect(await renewed).toBe('unreachable');
});
