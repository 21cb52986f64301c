import { writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readSettings } from '../../../src/cli/settings.ts';
import { GatewaySettings, StorageSettings } from '../../../src/control-protocol/settings.ts';
import { type TemporaryFolder, temporaryFolder } from '../../support/tools.ts';

let folder: TemporaryFolder;
let file: string;
beforeAll(async () => {
  folder = await temporaryFolder();
  file = folder.file('role.yaml');
});
afterAll(() => folder.remove());

interface Given {
  readonly flags?: Record<string, unknown>;
  readonly environment?: NodeJS.ProcessEnv;
  readonly yaml?: string;
}

function gateway({ flags = {}, environment = {}, yaml }: Given) {
  if (yaml !== undefined) writeFileSync(file, yaml);
  return readSettings(GatewaySettings, {
    flags,
    environment,
    file: yaml === undefined ? undefined : file,
    defaults: ({ name }) => ({
      site: GatewaySettings.shape.site.parse('nowhere'),
      data: resolve(`default/${name}`),
      listen: [{ host: '127.0.0.1', port: 10809 }],
      manage: { host: '127.0.0.1', port: 0 },
      directory: 'http://127.0.0.1:9800',
      workers: 1,
    }),
  });
}

describe('1. flag > variable > file > default', () => {
  const sources = {
    flags: { name: 'flag' },
    environment: { VOLARY_NAME: 'variable', VOLARY_SITE: 'variable', VOLARY_WORKERS: '2' },
    yaml: 'name: file\nsite: file\nworkers: 3\nreconnect: 5s\n',
  };

  test('each place gives way to the one before', () => {
    expect(gateway(sources)).toMatchObject({
      name: 'flag',
      site: 'variable',
      workers: 2,
      reconnect: 5000,
      directory: 'http://127.0.0.1:9800',
    });
    expect(gateway({ ...sources, flags: {} })).toMatchObject({ name: 'variable' });
    expect(gateway({ yaml: sources.yaml })).toMatchObject({ name: 'file', site: 'file', workers: 3 });
  });

  test('defaults know what the others say', () => {
    expect(gateway(sources).data).toBe(resolve('default/flag'));
    expect(gateway({ yaml: sources.yaml }).data).toBe(resolve('default/file'));
  });

  test('a variable that is set to nothing is not given', () => {
    expect(gateway({ ...sources, environment: { VOLARY_SITE: '' } }).site).toBe('file');
  });

  test('several addresses: a list in the file, spaces in a variable, a flag given more than once', () => {
    const two = [{ host: '127.0.0.1', port: 1 }, { path: '/run/v.sock' }];
    const uris = ['nbd://127.0.0.1:1', 'nbd+unix:///?socket=/run/v.sock'];
    expect(gateway({ flags: { name: 'g', listen: uris } }).listen).toEqual(two);
    expect(gateway({ environment: { VOLARY_NAME: 'g', VOLARY_LISTEN: uris.join(' ') } }).listen).toEqual(two);
    expect(gateway({ yaml: `name: g\nlisten:\n  - ${uris[0]}\n  - ${uris[1]}\n` }).listen).toEqual(two);
  });
});

describe('2. what is wrong is told with its place, also when another place overrides it', () => {
  test.each([
    ['an unknown key', { yaml: 'wokers: 2\n' }, /role\.yaml: wokers: there is no such setting/],
    ['a wrong type', { yaml: 'site: 5\n' }, /role\.yaml: site: .*expected string, received number/],
    ['a list for one value', { yaml: 'name: [a, b]\n' }, /role\.yaml: name: .*expected string/],
    ['a wrong value', { yaml: 'workers: 0\n' }, /role\.yaml: workers: .*from 1 to 64/],
    ['a number without unit', { yaml: 'reconnect: "30"\n' }, /role\.yaml: reconnect: "30" is no time/],
    ['the same key twice', { yaml: 'name: a\nname: b\n' }, /role\.yaml is no YAML: Map keys must be unique/],
    ['no mapping', { yaml: '- name\n' }, /role\.yaml has no "key: value" lines/],
    ['broken YAML', { yaml: 'name: [\n' }, /role\.yaml is no YAML: .*line 2/],
    ['a prototype', { yaml: '__proto__: 1\n' }, /role\.yaml: __proto__: there is no such setting/],
    ['a path for a name', { environment: { VOLARY_NAME: '../x' } }, /^VOLARY_NAME: the name of a gateway/],
    ['no URL', { environment: { VOLARY_DIRECTORY: 'localhost' } }, /^VOLARY_DIRECTORY: write http:/],
    [
      'no address',
      { flags: { name: 'g', manage: 'http://127.0.0.1' } },
      /^--manage: "127.0.0.1" is no HOST:PORT/,
    ],
    [
      'a bad URI',
      { flags: { name: 'g', listen: ['nbd://h:1', 'http://h'] } },
      /^--listen: "http:\/\/h" is no NBD URI/,
    ],
    ['no name', { flags: {} }, /^name is missing: give --name, VOLARY_NAME, or name in the file of --config/],
  ])('%s', (_, given, message) => {
    expect(() => gateway({ flags: { name: 'flag', site: 'flag' }, ...given })).toThrow(message);
  });

  test('the code of what was refused is kept', () => {
    const code = (call: () => unknown): unknown => {
      try {
        return call();
      } catch (error) {
        return (error as { code: string }).code;
      }
    };
    expect(code(() => gateway({ flags: { name: 'g', listen: ['x'] } }))).toBe('bad-uri');
    expect(code(() => gateway({ flags: { name: 'a/b' } }))).toBe('bad-argument');
    expect(
      code(() =>
        readSettings(StorageSettings, {
          flags: {},
          environment: {},
          file: folder.file('none'),
          defaults: () => ({}),
        }),
      ),
    ).toBe('not-found');
  });
});

describe('a storage system', () => {
  const flags = {
    name: 'east-1',
    site: 'east',
    data: 'data/east-1',
    listen: 'nbd://127.0.0.1:0',
    peer: '[::1]:7',
    manage: 'http://localhost:0',
    directory: 'http://127.0.0.1:9800',
  };
  const storage = (more: Record<string, unknown>) =>
    readSettings(StorageSettings, {
      flags: { ...flags, ...more },
      environment: {},
      file: undefined,
      defaults: () => ({}),
    });

  test('texts become values', () => {
    expect(storage({ capacity: '10GiB', advertise: 'disk.example' })).toEqual({
      name: 'east-1',
      site: 'east',
      data: resolve('data/east-1'),
      listen: { host: '127.0.0.1', port: 0 },
      peer: { host: '::1', port: 7 },
      manage: { host: 'localhost', port: 0 },
      directory: 'http://127.0.0.1:9800',
      capacity: 10 * 2 ** 30,
      advertise: 'disk.example',
    });
  });

  test('what others cannot reach is refused', () => {
    expect(() => storage({ listen: 'nbd+unix:///?socket=/run/s' })).toThrow(/listens on nbd:\/\/HOST:PORT/);
    expect(() => storage({ capacity: '10GB' })).toThrow(/--capacity: "10GB" is no size/);
  });
});
