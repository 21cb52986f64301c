/** Interfaces, logging in, groups: through the directory's API, over HTTP. */

import { describe, expect, test } from 'vitest';
import { CreateVolume } from '../../../src/control-protocol/directory-api.ts';
import type { DirectoryClient } from '../../../src/control-protocol/directory-client.ts';
import {
  GatewayName,
  GroupName,
  InterfaceName,
  SiteName,
  VolumeName,
} from '../../../src/control-protocol/names.ts';
import { STAY_MS } from '../../../src/directory/login.ts';
import type { DirectoryParts } from '../../../src/directory/service.ts';
import { type Behaviour, MiB, until } from '../../support/directory-lab.ts';
import { makeLab } from './lab.ts';

const V = VolumeName.parse('v');
const [EAST, WEST, NORTH] = ['east', 'west', 'north'].map((name) => SiteName.parse(name)) as [
  SiteName,
  SiteName,
  SiteName,
];
const IF = InterfaceName.parse('if-1');
const [EAST_GW, WEST_GW] = [GatewayName.parse('east-gw'), GatewayName.parse('west-gw')];

/** A volume with its primary in the east and a copy in the west that is in step; a third storage system in the north is empty. */
async function makeSites(parts: Partial<DirectoryParts> = {}) {
  const lab = await makeLab(parts);
  const east = await lab.storage('east-1', 64 * MiB, EAST);
  const west = await lab.storage('west-1', 64 * MiB, WEST);
  const north = await lab.storage('north-1', 64 * MiB, NORTH);
  for (const each of [east, west, north]) each.copies = true;
  const eastGateway = await lab.gateway('east-gw', EAST);
  const westGateway = await lab.gateway('west-gw', WEST);
  await lab.create(V, MiB, [{ storage: 'east-1' }], ['west-1']);
  await until(async () => (await standing(lab.directory)) === 'east-1 primary, west-1 duplex');
  return { ...lab, east, west, eastGateway, westGateway };
}

async function standing(directory: DirectoryClient): Promise<string> {
  const [segment] = (await directory.volumeRecord(V)).segments;
  return (segment?.copies ?? [])
    .map(({ storage, role, pair }) => `${storage} ${role === 'primary' ? role : pair}`)
    .join(', ');
}

const URI = 'nbd://127.0.0.1:10809/v';

describe('log-in by an interface', () => {
  test('the nearest site that has a copy in step becomes that of the primary', async () => {
    const { directory } = await makeSites();
    await directory.setInterface(IF, { sites: [NORTH, WEST, EAST] });
    expect(await directory.login(V, { interface: IF })).toEqual({
      uri: URI,
      site: 'west',
      gateway: 'west-gw',
    });
    expect(await standing(directory)).toBe('east-1 duplex, west-1 primary');
    const { segments } = await directory.volumeRecord(V);
    expect(segments[0]?.epoch).toBe(2);
    expect(await directory.login(V, { interface: IF })).toMatchObject({ site: 'west' });
    expect((await directory.volumeRecord(V)).segments[0]?.epoch, 'it is there already').toBe(2);
    await directory.setInterface(IF, { sites: [EAST] });
    expect(await directory.login(V, { interface: IF })).toMatchObject({ site: 'east', gateway: 'east-gw' });
  });

  test('without a copy near, it stays where it is, and the gateway is the nearest to it that there is', async () => {
    const { directory, eastGateway } = await makeSites({ leaseMs: 1_000 });
    await directory.setInterface(IF, { sites: [NORTH] });
    expect(await directory.login(V, { interface: IF })).toMatchObject({ site: 'east', gateway: 'east-gw' });
    await eastGateway.stop();
    await until(async () => (await directory.gateways()).some(({ state }) => state === 'offline'));
    expect(await directory.login(V, { interface: IF })).toMatchObject({ site: 'east', gateway: 'west-gw' });
  });

  test('a copy that is not in step, or away, is none', async () => {
    const { directory, east, west } = await makeSites({ leaseMs: 1_000 });
    await directory.setInterface(IF, { sites: [WEST] });
    await west.stop();
    await until(async () => (await directory.storageSystem(west.name)).state === 'offline');
    expect(await directory.login(V, { interface: IF })).toMatchObject({ site: 'east' });
    await west.start();
    await west.report(() => directory.url);
    await until(async () => (await directory.storageSystem(west.name)).state === 'online');
    east.copies = false;
    const [primary, secondary] = (await directory.volumeRecord(V)).segments[0]?.copies ?? [];
    if (primary === undefined || secondary === undefined) throw new Error('there are two copies');
    await east.reportPair(primary.realVolume, secondary.realVolume, 'suspended');
    expect(await directory.login(V, { interface: IF })).toMatchObject({ site: 'east' });
    expect(await standing(directory)).toBe('east-1 primary, west-1 suspended');
  });

  test('a switch that fails is told', async () => {
    const { directory, east } = await makeSites();
    await directory.setInterface(IF, { sites: [WEST] });
    east.behaviour = ({ method }): Behaviour =>
      method === 'POST hand-over' ? { status: 409, code: 'conflict' } : 'serve';
    await expect(directory.login(V, { interface: IF })).rejects.toMatchObject({
      code: 'failed',
      message: expect.stringMatching(/not switched to site west/),
    });
  });

  test('what is not there is said', async () => {
    const { directory } = await makeSites();
    await expect(directory.login(V, { interface: IF })).rejects.toMatchObject({
      code: 'not-found',
      message: expect.stringMatching(/interface set if-1/),
    });
    await expect(directory.login(VolumeName.parse('no'), { gateway: WEST_GW })).rejects.toMatchObject({
      code: 'not-found',
    });
    await expect(directory.login(V, { gateway: GatewayName.parse('no') })).rejects.toMatchObject({
      code: 'not-found',
    });
  });
});

describe('log-in by a gateway', () => {
  test('brings the primary to its site', async () => {
    const { directory } = await makeSites();
    expect(await directory.login(V, { gateway: WEST_GW })).toEqual({
      uri: URI,
      site: 'west',
      gateway: 'west-gw',
    });
    expect(await standing(directory)).toBe('east-1 duplex, west-1 primary');
  });

  test('not while hosts are connected elsewhere, nor while that cannot be known', async () => {
    const { directory, eastGateway, westGateway } = await makeSites();
    westGateway.hosts.set(V, 1); // its own do not count
    eastGateway.hosts.set(V, 1);
    expect(await directory.login(V, { gateway: WEST_GW })).toMatchObject({
      site: 'east',
      gateway: 'west-gw',
    });
    eastGateway.hosts.clear();
    eastGateway.answers = false;
    expect(await directory.login(V, { gateway: WEST_GW })).toMatchObject({
      site: 'east',
      gateway: 'west-gw',
    });
    expect(await standing(directory)).toBe('east-1 primary, west-1 duplex');
    eastGateway.answers = true;
    expect(await directory.login(V, { gateway: WEST_GW })).toMatchObject({ site: 'west' });
  });

  test('not before the primary has been where it is for a while; who asks for it does not wait', async () => {
    let laterMs = 0;
    const { directory, ...lab } = await makeSites({ now: () => new Date(Date.now() + laterMs) });
    const site = async (gateway: GatewayName) => (await directory.login(V, { gateway })).site;
    expect(await site(WEST_GW)).toBe('west');
    expect(await site(EAST_GW)).toBe('west');
    laterMs += STAY_MS;
    expect(await site(EAST_GW)).toBe('east');
    expect(await site(WEST_GW)).toBe('east');
    await directory.setInterface(IF, { sites: [WEST] });
    expect(await directory.login(V, { interface: IF })).toMatchObject({ site: 'west' });
    expect(await site(EAST_GW)).toBe('west');
    expect(await lab.ended(directory.switchCopy(V, { site: EAST }))).toMatchObject({ state: 'done' });
    expect(await site(WEST_GW)).toBe('east');
    laterMs += STAY_MS;
    expect(await site(WEST_GW)).toBe('west');
  });

  test('a switch that fails keeps nobody from the volume', async () => {
    const { directory, east } = await makeSites();
    east.behaviour = ({ method }): Behaviour =>
      method === 'POST hand-over' ? { status: 409, code: 'conflict' } : 'serve';
    expect(await directory.login(V, { gateway: WEST_GW })).toMatchObject({
      site: 'east',
      gateway: 'west-gw',
    });
    expect(await directory.login(V, { gateway: EAST_GW })).toMatchObject({
      site: 'east',
      gateway: 'east-gw',
    });
  });
});

test('interfaces are set, listed, changed and forgotten', async () => {
  const { directory, ...lab } = await makeSites();
  expect(await directory.setInterface(IF, { sites: [EAST, WEST] })).toEqual({
    name: IF,
    sites: [EAST, WEST],
  });
  await directory.setInterface(InterfaceName.parse('a'), { sites: [WEST] });
  await directory.setInterface(IF, { sites: [WEST] });
  await lab.restart();
  const all = [
    { name: 'a', sites: ['west'] },
    { name: 'if-1', sites: ['west'] },
  ];
  expect(await directory.interfaces()).toEqual(all);
  for (const [sites, code] of [
    [[EAST, EAST], 'bad-request'],
    [[SiteName.parse('moon')], 'not-found'],
    [[], 'bad-request'],
  ] as const) {
    await expect(directory.setInterface(IF, { sites: [...sites] })).rejects.toMatchObject({ code });
  }
  await directory.removeInterface(IF);
  await directory.removeInterface(IF);
  expect(await directory.interfaces()).toEqual(all.slice(0, 1));
});

test('groups say the fence of their volumes', async () => {
  const { directory, east, ...lab } = await makeSites();
  const G = GroupName.parse('g');
  const group = await directory.createGroup({ name: G, transfer: 'sync', fence: 'data' });
  expect(group).toMatchObject({
    name: 'g',
    transfer: 'sync',
    fence: 'data',
    fetch: null,
    volumes: [],
    sequence: 0,
  });
  const W = VolumeName.parse('w');
  const creation = {
    name: W,
    sizeBytes: MiB,
    segments: [{ storage: 'east-1' }],
    copies: ['west-1'],
    group: G,
  };
  expect(await lab.ended(directory.createVolume(CreateVolume.parse(creation)))).toMatchObject({
    state: 'done',
  });
  const { fence, segments } = await directory.volumeRecord(W);
  expect(fence).toBe('data');
  const id = segments[0]?.copies[0]?.realVolume ?? '';
  await until(() => east.members.get(id)?.config.fence === 'data');
  await lab.restart();
  const none = { stored: 0, transferred: 0, applied: 0, discarded: 0, journal: { used: 0, size: 0 } };
  expect(await directory.group(G)).toEqual({
    ...group,
    volumes: ['w'],
    secondaries: [{ storage: 'west-1', ...none }],
  });
  expect(await directory.groups()).toEqual([await directory.group(G)]);
  const refused = (more: object) =>
    directory.createGroup({ name: GroupName.parse('h'), transfer: 'sync', ...more });
  await expect(refused({ name: G })).rejects.toMatchObject({ code: 'exists' });
  await expect(refused({ transfer: 'async' })).rejects.toMatchObject({ code: 'not-supported' });
  await expect(refused({ journal: 'volume' })).rejects.toMatchObject({ code: 'not-supported' });
  await expect(directory.group(GroupName.parse('h'))).rejects.toMatchObject({ code: 'not-found' });
});

test('OpenAPI knows what there is for copies, log-in, interfaces, groups and members', async () => {
  const { directory } = await makeLab();
  const document = (await (await fetch(`${directory.url}/openapi.json`)).json()) as { paths: object };
  const paths = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.keys(methods as object).map((method) => `${method} ${path}`),
  );
  expect(paths).toEqual(
    expect.arrayContaining([
      'post /volumes/{name}/copies',
      'delete /volumes/{name}/copies/{storage}',
      'post /volumes/{name}/copies/{storage}/suspend',
      'post /volumes/{name}/copies/{storage}/resync',
      'post /volumes/{name}/switch',
      'post /volumes/{name}/failover',
      'post /volumes/{name}/login',
      'get /interfaces',
      'put /interfaces/{name}',
      'delete /interfaces/{name}',
      'get /groups',
      'post /groups',
      'get /groups/{name}',
      'post /pairs',
      'post /leases',
      'post /discards',
    ]),
  );
});
