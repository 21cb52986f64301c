/** Verbs that go on: `status --watch` and `events --follow`, for programs and on a terminal. */

import { once } from 'node:events';
import { expect, test } from 'vitest';
import type { EventRecord } from '../../src/control-protocol/catalog.ts';
import type { StatusView } from '../../src/control-protocol/directory-api.ts';
import { volaryCommand } from '../support/server.ts';
import { eventually, requireTool, runOk } from '../support/tools.ts';
import { document, freshDirectory, GiB, type Running, startVerb, volary } from '../support/verb-cases.ts';

const directory = freshDirectory();

const ids = (verb: Running) => verb.lines().map((line) => (JSON.parse(line) as EventRecord).id);
const hasLines = (verb: Running, count: number) =>
  eventually(`${count} lines`, () => (verb.lines().length >= count ? true : undefined));
const streaming = () => eventually('a stream', () => (directory().streams > 0 ? true : undefined));

function happen(count: number): void {
  for (let index = 0; index < count; index++) directory().happen('volume.created', `v${index}`);
}

test('events: the newest, those after an id, and how many', async () => {
  const { url } = directory();
  expect(await document(url, ['events'])).toEqual([]);
  expect((await volary(url, ['events'])).stdout).toBe('nothing has happened\n');
  happen(2_500);
  const listed = async (...args: string[]) =>
    (await document<EventRecord[]>(url, ['events', ...args])).map(({ id }) => id);
  expect(await listed()).toEqual(Array.from({ length: 20 }, (_, index) => 2_481 + index));
  expect(await listed('--limit', '2')).toEqual([2_499, 2_500]);
  expect(await listed('--limit', '0')).toEqual([]);
  expect(await listed('--since', '2497')).toEqual([2_498, 2_499, 2_500]);
  expect(await listed('--since', '0')).toHaveLength(2_500);
  expect(await listed('--since', '10', '--limit', '1500')).toHaveLength(1_500);
  expect(await listed('--since', '9000')).toEqual([]);
});

test('events --follow: what has happened, then what happens, also after a restart; each once', async () => {
  happen(3);
  const verb = startVerb(directory().url, ['events', '--follow', '--limit', '2', '--json']);
  await hasLines(verb, 2);
  await streaming();
  happen(1);
  await hasLines(verb, 3);
  await directory().stop();
  happen(2);
  await directory().start();
  await hasLines(verb, 5);
  await streaming();
  happen(1);
  await hasLines(verb, 6);
  expect(await verb.interrupt()).toBe(0);
  expect(ids(verb)).toEqual([2, 3, 4, 5, 6, 7]);
});

test('events --follow --since, and --limit 0: after that one, and only what happens', async () => {
  happen(3);
  const since = startVerb(directory().url, ['events', '--follow', '--since', '1', '--json']);
  const now = startVerb(directory().url, ['events', '--follow', '--limit', '0', '--json']);
  await hasLines(since, 2);
  await eventually('both streams', () => (directory().streams === 2 ? true : undefined));
  happen(1);
  await hasLines(since, 3);
  await hasLines(now, 1);
  expect([await since.interrupt(), await now.interrupt()]).toEqual([0, 0]);
  expect([ids(since), ids(now)]).toEqual([[2, 3, 4], [4]]);
});

test('events --follow ends when nobody reads any more', async () => {
  const verb = startVerb(directory().url, ['events', '--follow']);
  await streaming();
  happen(1);
  await hasLines(verb, 1);
  const closed = once(verb.process, 'exit');
  verb.process.stdout?.destroy();
  await eventually('the process sees it', async () => {
    happen(1);
    return verb.process.exitCode ?? undefined;
  });
  expect((await closed)[0]).toBe(0);
});

test('status --watch --json: a document for each change, one for a directory that is away', async () => {
  const verb = startVerb(directory().url, ['status', '--watch', '--json']);
  await hasLines(verb, 1);
  directory().addVolume('db', GiB);
  await hasLines(verb, 2);
  const asked = directory().asked.length;
  await eventually('it looks again', () => (directory().asked.length >= asked + 2 ? true : undefined));
  for (const [name, view] of directory().storage) {
    directory().storage.set(name, { ...view, lastSeenAt: '2027-01-01T00:00:00.000Z' });
  }
  await eventually('it looks again', () => (directory().asked.length >= asked + 4 ? true : undefined));
  expect(verb.lines(), 'nothing has changed').toHaveLength(2);
  await directory().stop();
  await hasLines(verb, 3);
  await directory().start();
  await hasLines(verb, 4);
  expect(await verb.interrupt()).toBe(0);
  const documents = verb.lines().map((line) => JSON.parse(line) as Partial<StatusView> & { error?: object });
  expect(documents.map(({ volumes }) => volumes?.count)).toEqual([0, 1, undefined, 1]);
  expect(documents[2]).toMatchObject({ error: { code: 'unreachable' } });
});

test('status --watch into a file: the text again for each change', async () => {
  const verb = startVerb(directory().url, ['status', '--watch']);
  await eventually('the first', () => (/^0 volumes/m.test(verb.stdout()) ? true : undefined));
  directory().addVolume('db', GiB);
  await eventually('the second', () => (/^1 volume, 1 GiB$/m.test(verb.stdout()) ? true : undefined));
  expect(await verb.interrupt()).toBe(0);
  expect(verb.stdout()).not.toContain('\x1b');
});

/** On a terminal of its own, of 12 lines; as typed there. */
function onTerminal(command: string): Running {
  const script = requireTool('script', 'bsdutils');
  const inside = `stty rows 12 cols 80; exec ${volaryCommand} ${command}`;
  return startVerb(directory().url, ['-qec', inside, '/dev/null'], [script]);
}

test('status --watch on a terminal: drawn in place, and Ctrl-C gives everything back', async () => {
  const enter = '\x1b[?1049h\x1b[?25l\x1b[?7l';
  const leave = '\x1b[?7h\x1b[?25h\x1b[?1049l';
  const verb = onTerminal('status --watch');
  await eventually('the first', () => (verb.stdout().includes('0 volumes') ? true : undefined));
  for (let index = 0; index < 9; index++) {
    const [view] = directory().storage.values();
    if (view !== undefined) directory().storage.set(`s${index}`, { ...view, id: view.id });
  }
  await eventually('more than fits', () => (/… \d+ more lines/.test(verb.stdout()) ? true : undefined));
  const { process: child } = verb;
  const volaryPid = Number((await runOk('ps', ['-o', 'pid=', '--ppid', String(child.pid)])).stdout);
  const ended = once(child, 'close');
  process.kill(volaryPid, 'SIGINT');
  expect((await ended)[0]).toBe(0);
  const shown = verb.stdout();
  expect(shown.startsWith(enter)).toBe(true);
  expect(shown.endsWith(leave)).toBe(true);
  expect(shown.indexOf('cluster')).toBeGreaterThan(0);
  expect(shown, 'the screen is never erased as a whole').not.toContain('\x1b[2J');
});
