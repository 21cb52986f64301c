/** Roles that behave badly: small programs in place of `volary run`. */

import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type Change, RoleKeeper } from '../../../src/supervisor/role-keeper.ts';
import { isRunning } from '../../support/process.ts';
import { eventually } from '../../support/tools.ts';

const plan = { kind: 'directory', name: 'bad', site: '', data: '/none', args: [] } as const;

const readyz = createServer((_, response) => response.end('{}'));
let manage: string;
beforeAll(async () => {
  await new Promise<void>((listening) => readyz.listen(0, '127.0.0.1', listening));
  manage = `http://127.0.0.1:${(readyz.address() as AddressInfo).port}`;
});
afterAll(() => readyz.close());

const keepers: RoleKeeper[] = [];
afterEach(async () => {
  for (const keeper of keepers.splice(0)) await keeper.stop(0);
});

function keep(script: string, restart = true) {
  const changes: Change[] = [];
  const lines: string[] = [];
  const keeper = new RoleKeeper({
    plan,
    command: [process.execPath, '-e', script, '--'],
    environment: { ...process.env, MANAGE: manage },
    restart,
    onLine: (line) => lines.push(line),
    onChange: (change) => changes.push(change),
  });
  keepers.push(keeper);
  keeper.start();
  const ended = () => changes.filter((change) => change.state === 'ended');
  return { keeper, changes, lines, ended };
}

const SAY_READY = `console.log(JSON.stringify({ ready: true, directory: process.env.MANAGE }));`;
const STAY = 'setInterval(() => {}, 1000);';

describe('before it was ready', () => {
  test('3. its own failure is told with its code and name, and it is not started again', async () => {
    const said = JSON.stringify({ error: { code: 'corrupt-metadata', message: 'the catalog is damaged' } });
    const { keeper, ended } = keep(`console.log(${JSON.stringify(said)}); process.exitCode = 1;`);
    await expect(keeper.ready()).rejects.toMatchObject({
      code: 'corrupt-metadata',
      message: 'bad: the catalog is damaged',
    });
    expect(ended()).toMatchObject([{ end: { code: 1, signal: null } }]);
    expect(ended()[0]?.restartMs).toBeUndefined();
  });

  test('3. a folder that is locked is waited for', async () => {
    const said = JSON.stringify({ error: { code: 'locked', message: 'in use' } });
    const { ended } = keep(`console.log(${JSON.stringify(said)}); process.exitCode = 1;`);
    await eventually('three lives', () => (ended().length >= 3 ? true : undefined));
    expect(
      ended()
        .map(({ restartMs }) => restartMs)
        .slice(0, 3),
    ).toEqual([100, 200, 400]);
  });

  test('a crash without a word: the lines that it has written are kept, and the end is told', async () => {
    const { keeper, lines } = keep(`throw new Error('a mistake of ours')`);
    await expect(keeper.ready()).rejects.toMatchObject({ code: 'failed', message: /exit status 1/ });
    expect(lines.join('\n')).toContain('a mistake of ours');
  });

  test('a program that is not there', async () => {
    const keeper = new RoleKeeper({
      plan,
      command: ['/none/such'],
      environment: {},
      restart: false,
      onLine: () => undefined,
      onChange: () => undefined,
    });
    keeper.start();
    await expect(keeper.ready()).rejects.toMatchObject({
      code: 'io',
      message: /bad cannot be run: .*ENOENT/,
    });
    await keeper.stop(0);
  });

  test('a signal is no failure of its own: it is started again', async () => {
    const { ended } = keep(`process.kill(process.pid, 'SIGKILL')`);
    await eventually('two lives', () => (ended().length >= 2 ? true : undefined));
    expect(ended()[0]).toMatchObject({ end: { signal: 'SIGKILL' }, restartMs: 100 });
  });
});

describe('once it was ready', () => {
  test('whatever ends it, it is started again, later each time', async () => {
    const { keeper, ended } = keep(`${SAY_READY} setTimeout(() => process.exit(3), 300);`);
    expect(await keeper.ready()).toMatchObject({ manage, uri: '' });
    await eventually('three lives', () => (ended().length >= 3 ? true : undefined));
    expect(
      ended()
        .map(({ restartMs }) => restartMs)
        .slice(0, 3),
    ).toEqual([100, 200, 400]);
    expect(new Set(ended().map(({ pid }) => pid)).size).toBe(ended().length);
  });

  test('without restarts it stays away', async () => {
    const { keeper, ended } = keep(`${SAY_READY} setTimeout(() => process.exit(3), 300);`, false);
    await keeper.ready();
    await eventually('its end', () => (ended().length > 0 ? true : undefined));
    expect(ended()).toMatchObject([{ end: { code: 3 } }]);
    expect(ended()[0]?.restartMs).toBeUndefined();
  });
});

describe('stop', () => {
  test('2. one that does not stop by itself is killed, with what it has started', async () => {
    const { keeper, lines } = keep(
      `process.on('SIGTERM', () => {});
       const child = require('node:child_process').spawn(process.execPath, ['-e', '${STAY}']);
       console.log('child ' + child.pid); ${SAY_READY} ${STAY}`,
    );
    const { pid } = await keeper.ready();
    const child = Number(lines.find((line) => line.startsWith('child '))?.slice('child '.length));
    expect([pid, child].every(isRunning)).toBe(true);
    await keeper.stop(100);
    expect(isRunning(pid)).toBe(false);
    await eventually('the end of its child', () => (isRunning(child) ? undefined : true));
  });

  test('2. while it waits to be started again: it is not', async () => {
    const { keeper, changes, ended } = keep(`process.kill(process.pid, 'SIGKILL')`);
    await eventually('its end', () => (ended().length > 0 ? true : undefined));
    await keeper.stop(0);
    const soFar = changes.length;
    await new Promise((wake) => setTimeout(wake, 500));
    expect(changes).toHaveLength(soFar);
    await expect(keeper.ready()).rejects.toMatchObject({ code: 'cancelled' });
  });
});
