import { writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { count, line } from '../../support/count.ts';
import { projectRoot, run, temporaryFolder } from '../../support/tools.ts';

const file = (status: string, ...statuses: string[]) => ({
  status,
  assertionResults: statuses.map((each) => ({ status: each })),
});

test.each([
  ['all is well', { testResults: [file('passed', 'passed', 'passed')] }, 0, '2 passed, 0 failed'],
  ['one fails', { testResults: [file('failed', 'passed', 'failed')] }, 1, '1 passed, 1 failed'],
  [
    'one is left out',
    { testResults: [file('passed', 'passed', 'pending')] },
    0,
    '1 passed, 0 failed, 1 skipped',
  ],
  [
    'a file does not load',
    { testResults: [file('passed', 'passed'), file('failed')] },
    1,
    '1 passed, 1 failed',
  ],
  [
    'something fails outside of the tests',
    { testResults: [file('passed', 'passed')] },
    1,
    '1 passed, 1 failed',
  ],
  ['there is no report', undefined, 0, '0 passed, 1 failed'],
])('%s', (_, report, vitestStatus, expected) => {
  expect(line(count(report, vitestStatus))).toBe(expected);
});

test('the last line stands alone, and the exit status agrees with it', async () => {
  const folder = await temporaryFolder();
  const tell = (status: string) =>
    run(process.execPath, [`${projectRoot}/test/support/count.ts`, folder.file('r'), status]);
  writeFileSync(folder.file('r'), JSON.stringify({ testResults: [file('passed', 'passed')] }));
  expect(await tell('0')).toMatchObject({ code: 0, stdout: '1 passed, 0 failed\n', stderr: '' });
  expect(await tell('1')).toMatchObject({ code: 1, stdout: '1 passed, 1 failed\n', stderr: '' });
  await folder.remove();
});
