/** `volary run ROLE` as service managers and compose files meet it. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Cluster, layCluster, smallShape } from '../support/cluster.ts';
import { takePorts } from '../support/ports.ts';
import { expectFailure } from '../support/serve-cases.ts';
import { run } from '../support/tools.ts';
import { startVolary, volaryCommand } from '../support/volary-process.ts';

let cluster: Cluster;
beforeAll(async () => {
  cluster = await layCluster();
  await cluster.directory.start();
});
afterAll(() => cluster.end());

describe('what it prints', () => {
  test('a line for people; SIGTERM ends it with 0', async () => {
    const [port] = await takePorts(1);
    const args = ['--data', `${cluster.folder}/other`, '--listen', `http://127.0.0.1:${port}`];
    const child = spawn(volaryCommand, ['run', 'directory', ...args], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    child.stdout.setEncoding('utf8').once('data', () => child.kill('SIGTERM'));
    let stdout = '';
    child.stdout.on('data', (text: string) => {
      stdout += text;
    });
    expect(await once(child, 'close')).toEqual([0, null]);
    expect(stdout).toBe(`ready http://127.0.0.1:${port}\n`);
  });

  test.each(Object.keys(smallShape.storage))('storage system %s', async (name) => {
    const { ready } = await cluster.storage(name).start();
    const { manage, uri } = cluster.storage(name);
    expect(ready).toEqual({ ready: true, uri, manage, peer: expect.stringMatching(/^127\.0\.0\.1:\d+$/) });
    expect(await cluster.storage(name).stop()).toEqual({ code: 0, signal: null });
  });

  test('a gateway', async () => {
    const { ready } = await cluster.gateway('east-gw').start();
    const { manage, uri } = cluster.gateway('east-gw');
    expect(ready).toEqual({ ready: true, uris: [uri], manage });
    expect(await cluster.gateway('east-gw').stop()).toEqual({ code: 0, signal: null });
  });
});

test('a storage system that waits for the directory, since nobody else knows whether it is a copy, ends when it is asked to', async () => {
  const { data, flags, ...storage } = cluster.storage('east-2');
  await storage.start();
  await storage.stop();
  const table = new DatabaseSync(`${data}/meta.db`);
  table.exec(`UPDATE instance SET state = json_set(state, '$.place', json('{"lock":"before","file":null}'))`);
  table.close();
  await cluster.directory.kill();
  try {
    const child = spawn(volaryCommand, ['run', 'storage', ...flags], { stdio: ['ignore', 'ignore', 'pipe'] });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      if (text.includes('waits to start')) child.kill('SIGTERM');
    });
    expect(await once(child, 'close')).toEqual([0, null]);
  } finally {
    await cluster.directory.start();
  }
});

describe('settings', () => {
  const start = async (yaml: string, args: readonly string[], env: Record<string, string> = {}) => {
    const file = `${cluster.folder}/role.yaml`;
    writeFileSync(file, yaml);
    return startVolary(['run', ...args, '--config', file], { env });
  };

  test('from a file, variables and flags, in one role', async () => {
    const [fromFile, fromVariable, fromFlag] = await takePorts(3);
    const yaml = [
      'name: yaml-1',
      'site: file',
      `data: ${cluster.folder}/yaml-1`,
      `listen: nbd://127.0.0.1:${fromFile}`,
      `peer: 127.0.0.1:${fromFile}`,
      `manage: http://127.0.0.1:${fromFile}`,
      'capacity: 1073741824',
    ].join('\n');
    const env = {
      VOLARY_SITE: 'variable',
      VOLARY_PEER: `127.0.0.1:${fromVariable}`,
      VOLARY_MANAGE: `http://127.0.0.1:${fromVariable}`,
      VOLARY_DIRECTORY: cluster.directory.url,
    };
    const storage = await start(yaml, ['storage', '--manage', `http://127.0.0.1:${fromFlag}`], env);
    expect(storage.ready).toEqual({
      ready: true,
      uri: `nbd://127.0.0.1:${fromFile}`,
      peer: `127.0.0.1:${fromVariable}`,
      manage: `http://127.0.0.1:${fromFlag}`,
    });
    const [view] = (await cluster.client.storageSystems()).filter(({ name }) => name === 'yaml-1');
    expect(view).toMatchObject({ site: 'variable', capacityBytes: 2 ** 30 });
    expect(await storage.stop()).toEqual({ code: 0, signal: null });
  });

  test('what is wrong: exit 2, with file and key', async () => {
    const file = `${cluster.folder}/wrong.yaml`;
    writeFileSync(file, 'name: x\nsite: east\nwokers: 2\n');
    const result = await run(volaryCommand, ['run', 'gateway', '--config', file, '--json']);
    expectFailure(
      result,
      'bad-argument',
      /wrong\.yaml: wokers: there is no such setting \(see volary run/,
      2,
    );
  });

  test('what is missing: exit 2', async () => {
    const result = await run(volaryCommand, ['run', 'storage', '--name', 'x', '--json']);
    expectFailure(result, 'bad-argument', /^site is missing: give --site, VOLARY_SITE/, 2);
  });
});

describe('an address that others can connect to', () => {
  const member = ['--name', 'x', '--site', 'east', '--directory', 'http://127.0.0.1:1'];
  const storage = (given: { listen?: string; peer?: string; more?: string[] }) => {
    const { listen = 'nbd://127.0.0.1:0', peer = '127.0.0.1:0', more = [] } = given;
    return ['storage', ...member, '--listen', listen, '--peer', peer, ...more];
  };
  const gateway = ['gateway', ...member, '--listen', 'nbd://127.0.0.1:0', '--listen', 'nbd://0.0.0.0:0'];
  test.each([
    [
      'a storage system',
      storage({ listen: 'nbd://0.0.0.0:0' }),
      /^listen .* "0\.0\.0\.0".* --advertise HOST/,
    ],
    ['a storage system, IPv6', storage({ listen: 'nbd://[::]:0' }), /^listen /],
    ['its peer address', storage({ peer: '[::0]:0' }), /^peer /],
    ['its management', storage({ more: ['--manage', 'http://0.0.0.0:0'] }), /^manage /],
    ['one of the addresses of a gateway', gateway, /^listen /],
    ['what is advertised', storage({ more: ['--advertise', '::'] }), /^--advertise: .* can connect to/],
  ])('%s on a wildcard is refused: exit 2', async (_, args, sentence) => {
    const result = await run(volaryCommand, ['run', ...args, '--json', '--data', `${cluster.folder}/x`]);
    expectFailure(result, 'bad-argument', sentence, 2);
  });

  test('with --advertise it is not; a directory needs none', async () => {
    const flags = ['--data', `${cluster.folder}/y`, '--advertise', 'localhost', '--json'];
    const started = await startVolary(['run', ...storage({ listen: 'nbd://0.0.0.0:0' }), ...flags]);
    expect(started.ready).toMatchObject({ uri: expect.stringMatching(/^nbd:\/\/localhost:\d+$/) });
    expect(await started.stop()).toEqual({ code: 0, signal: null });
    const directory = ['run', 'directory', '--data', `${cluster.folder}/z`, '--listen', 'http://0.0.0.0:0'];
    expect(await (await startVolary(directory)).stop()).toEqual({ code: 0, signal: null });
  });
});

describe('what cannot be', () => {
  test('a port in use: exit 1, with what to do', async () => {
    const args = ['--data', `${cluster.folder}/third`, '--listen', cluster.directory.url];
    const result = await run(volaryCommand, ['run', 'directory', ...args, '--json'], {
      env: { VOLARY_LOG_LEVEL: 'silent' },
    });
    expectFailure(result, 'address-in-use', /another program is listening there/);
  });

  test('a data folder in use: exit 1, with who has it', async () => {
    const [port] = await takePorts(1);
    const args = ['--data', cluster.directory.data, '--listen', `http://127.0.0.1:${port}`];
    const result = await run(volaryCommand, ['run', 'directory', ...args, '--json'], {
      env: { VOLARY_LOG_LEVEL: 'silent' },
    });
    expectFailure(result, 'locked', new RegExp(`in use by process ${cluster.directory.pid()}`));
  });

  test('a supervisor that is gone before the role has started: it does not stay', async () => {
    const { uri, flags } = cluster.gateway('east-gw');
    const result = await run(volaryCommand, ['run', 'gateway', ...flags, '--json', '--supervised']);
    expect(result.code).toBe(0);
    expect(JSON.parse(result.stdout)).toMatchObject({ uris: [uri] });
    expect(result.stderr).toContain('the supervisor is gone');
  });
});
