import { describe, expect, test } from 'vitest';
import { addressesOf, defaultTopology, plansOf, Topology } from '../../../src/supervisor/topology.ts';

const directory = { listen: 'http://127.0.0.1:9800' };
const gateway = { site: 'east', listen: 'nbd://127.0.0.1:10809', manage: 'http://127.0.0.1:10851' };
const storage = {
  site: 'east',
  listen: 'nbd://127.0.0.1:10821',
  peer: '127.0.0.1:10831',
  manage: 'http://127.0.0.1:10841',
};
const small = { directory, gateways: { gw: gateway }, storage: { one: storage } };

describe('the default', () => {
  const topology = defaultTopology();

  test('is what CONTRACT.md says', () => {
    expect(topology.directory.listen).toEqual({ host: '127.0.0.1', port: 9800 });
    const sites = (members: Record<string, { site: string }>) =>
      Object.entries(members).map(([name, { site }]) => [name, site]);
    expect(sites(topology.storage)).toEqual([
      ['east-1', 'east'],
      ['east-2', 'east'],
      ['west-1', 'west'],
      ['west-2', 'west'],
    ]);
    expect(sites(topology.gateways)).toEqual([
      ['east-gw', 'east'],
      ['west-gw', 'west'],
    ]);
    expect(Object.values(topology.gateways).map(({ listen }) => listen)).toEqual([
      [{ host: '127.0.0.1', port: 10809 }],
      [{ host: '127.0.0.1', port: 10810 }],
    ]);
  });

  test('Q2: listens on loopback alone', () => {
    expect(new Set(addressesOf(topology).map(({ address }) => address.host))).toEqual(new Set(['127.0.0.1']));
  });
});

describe('how roles are started', () => {
  test('with the flags of volary run', () => {
    const plans = plansOf(
      Topology.parse({
        directory: { listen: 'http://0.0.0.0:9800' },
        gateways: {
          gw: {
            ...gateway,
            listen: [gateway.listen, 'nbd+unix:///?socket=/run/v.sock'],
            workers: 2,
            reconnect: '5s',
          },
        },
        storage: { one: { ...storage, capacity: '1GiB', advertise: 'disk.example' } },
      }),
      '/data',
    );
    expect(plans.map(({ kind, name, site, data }) => [kind, name, site, data])).toEqual([
      ['directory', 'directory', '', '/data/directory'],
      ['storage', 'one', 'east', '/data/one'],
      ['gateway', 'gw', 'east', '/data/gw'],
    ]);
    expect(plans.map(({ args }) => [...args].sort())).toEqual([
      ['--data=/data/directory', '--listen=http://0.0.0.0:9800', 'directory', 'run'],
      [
        '--advertise=disk.example',
        '--capacity=1073741824',
        '--data=/data/one',
        '--directory=http://127.0.0.1:9800',
        '--listen=nbd://127.0.0.1:10821',
        '--manage=http://127.0.0.1:10841',
        '--name=one',
        '--peer=127.0.0.1:10831',
        '--site=east',
        'run',
        'storage',
      ],
      [
        '--data=/data/gw',
        '--directory=http://127.0.0.1:9800',
        '--listen=nbd+unix:///?socket=/run/v.sock',
        '--listen=nbd://127.0.0.1:10809',
        '--manage=http://127.0.0.1:10851',
        '--name=gw',
        '--reconnect=5000ms',
        '--site=east',
        '--workers=2',
        'gateway',
        'run',
      ],
    ]);
  });
});

describe('what is refused', () => {
  const other = {
    ...storage,
    listen: 'nbd://127.0.0.1:1',
    peer: '127.0.0.1:2',
    manage: 'http://127.0.0.1:3',
  };
  test.each([
    ['nothing', {}, 'directory', /expected object/],
    ['an unknown kind', { ...small, storages: {} }, '', /Unrecognized key: "storages"/],
    ['an unknown key', { ...small, storage: { one: { ...storage, pear: 1 } } }, 'storage.one', /"pear"/],
    [
      'its own data folder',
      { ...small, storage: { one: { ...storage, data: '/x' } } },
      'storage.one',
      /"data"/,
    ],
    ['a path for a name', { ...small, storage: { '../x': storage } }, 'storage.../x', /Invalid key/],
    ['a reserved name', { ...small, storage: { directory: storage } }, 'storage.directory', /is taken/],
    ['one name twice', { ...small, storage: { gw: storage } }, 'storage.gw', /"gw" is taken/],
    [
      'one port twice',
      { ...small, storage: { one: storage, two: { ...other, peer: storage.manage.slice(7) } } },
      'storage.two.peer',
      /127\.0\.0\.1:10841 is the address of storage\.one\.manage already/,
    ],
    [
      'any port',
      { ...small, storage: { one: { ...storage, peer: '127.0.0.1:0' } } },
      'storage.one.peer',
      /choose one/,
    ],
    [
      'everywhere, and nobody is told where',
      { ...small, storage: { one: { ...storage, peer: '0.0.0.0:10831' } } },
      'storage.one.peer',
      /"0\.0\.0\.0" .* add advertise: HOST/,
    ],
    ['no port', { ...small, directory: { listen: 'http://127.0.0.1' } }, 'directory.listen', /no HOST:PORT/],
    [
      'no site',
      { ...small, gateways: { gw: { ...gateway, site: undefined } } },
      'gateways.gw.site',
      /expected string/,
    ],
  ])('%s', (_, document, path, message) => {
    const { error } = Topology.safeParse(document);
    const issue = error?.issues[0];
    expect(issue?.path.join('.')).toBe(path);
    expect(issue?.message).toMatch(message);
  });
});
