import { expect, test } from 'vitest';
import { createLogger } from '../../../src/runtime/logger.ts';
import { projectRoot, run } from '../../support/tools.ts';

const script = `
  import { createLogger } from '${projectRoot}/src/runtime/logger.ts';
  const log = createLogger(process.env);
  log.debug({ a: 1 }, 'small');
  log.info({ export: 'x' }, 'state changed');
  process.exit(3); // at once: the line is out already
`;

async function linesAt(level: string | undefined): Promise<Record<string, unknown>[]> {
  const { code, stdout, stderr } = await run(
    process.execPath,
    ['--input-type=module-typescript', '-e', script],
    {
      env: { VOLARY_LOG_LEVEL: level },
    },
  );
  expect({ code, stdout }).toEqual({ code: 3, stdout: '' });
  return stderr
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

test('a line is one JSON object on stderr, out before the call returns', async () => {
  const lines = await linesAt(undefined);
  expect(lines).toEqual([{ level: 'info', time: expect.any(String), export: 'x', msg: 'state changed' }]);
  expect(new Date(String(lines[0]?.time)).toISOString()).toBe(lines[0]?.time);
});

test('VOLARY_LOG_LEVEL says how much', async () => {
  expect((await linesAt('debug')).map(({ msg }) => msg)).toEqual(['small', 'state changed']);
  expect(await linesAt('error')).toEqual([]);
  expect(await linesAt('silent')).toEqual([]);
});

test('a level that is none is refused with those that there are', () => {
  expect(() => createLogger({ VOLARY_LOG_LEVEL: 'loud' })).toThrow(/"loud".*trace, debug, info, warn, error/);
});
