/** What the directory's double has of copies, log-in, interfaces and groups. What copying comes to is the test's to say (`setPair`). */

import { z } from 'zod';
import type { OperationRecord } from '../../src/control-protocol/catalog.ts';
import { InterfaceRecord } from '../../src/control-protocol/catalog.ts';
import {
  AddCopy,
  ConsistencyGroupView,
  CreateGroup,
  FailOver,
  Login,
  LoginView,
  SetInterface,
  SwitchCopy,
  VolumeView,
} from '../../src/control-protocol/directory-api.ts';
import { directoryRoutes } from '../../src/control-protocol/directory-routes.ts';
import { GroupName, InterfaceName, StorageName, VolumeName } from '../../src/control-protocol/names.ts';
import { ControlError } from '../../src/model/errors.ts';
import type { HttpServer } from '../../src/runtime/http-server.ts';
import { copyView, type DirectoryDouble } from './directory-double.ts';

type Pair = 'copying' | 'duplex' | 'suspended';
type Copy = VolumeView['segments'][number]['copies'][number];

const MADE_AT = '2026-11-21T12:00:00.000Z';
const begins = directoryRoutes.addCopy.response;

/** One more copy of each segment. */
export function addCopy(double: DirectoryDouble, volume: string, storage: string, pair: Pair): void {
  changeCopies(double, volume, (copies) => [
    ...copies,
    { ...copyView(storage), site: storage.replace(/-\d+$/, ''), role: 'secondary', pair } as Copy,
  ]);
}

export function setPair(
  double: DirectoryDouble,
  volume: string,
  storage: string,
  pair: Pair,
  more: { reason?: string; outOfSyncBytes?: number; outOfSyncKnown?: boolean } = {},
): void {
  changeCopies(double, volume, (copies) =>
    copies.map((copy) => (copy.storage === storage ? { ...copy, reason: null, ...more, pair } : copy)),
  );
}

function changeCopies(double: DirectoryDouble, name: string, change: (copies: Copy[]) => Copy[]): void {
  const volume = double.volume(name);
  const segments = volume.segments.map((segment) => ({ ...segment, copies: change(segment.copies) }));
  double.volumes.set(name, VolumeView.parse({ ...volume, segments }));
}

function makePrimary(double: DirectoryDouble, volume: string, isMeant: (copy: Copy) => boolean): void {
  changeCopies(double, volume, (copies) =>
    copies.map((copy) =>
      isMeant(copy)
        ? { ...copy, role: 'primary', pair: 'simplex' }
        : { ...copy, role: 'secondary', pair: 'duplex' },
    ),
  );
}

export function routeCopies(server: HttpServer, double: DirectoryDouble): void {
  routeChanges(server, double);
  routeLogin(server, double);
  routeGroups(server);
}

function routeChanges(server: HttpServer, double: DirectoryDouble): void {
  const volume = z.object({ name: VolumeName });
  const copy = z.object({ name: VolumeName, storage: StorageName });
  server.post(
    '/volumes/:name/copies',
    { schema: { params: volume, body: AddCopy, response: begins } },
    ({ params, body }, reply) => {
      if (double.volume(params.name).segments[0]?.copies.some(({ storage }) => storage === body.storage)) {
        throw new ControlError('exists', `volume ${params.name} has a copy on ${body.storage} already`);
      }
      addCopy(double, params.name, body.storage, 'copying');
      reply.status(202);
      return double.begin('add-copy', params.name);
    },
  );
  server.delete(
    '/volumes/:name/copies/:storage',
    { schema: { params: copy, response: begins } },
    ({ params }, reply) => {
      changeCopies(double, params.name, (all) => all.filter(({ storage }) => storage !== params.storage));
      reply.status(202);
      return double.begin('remove-copy', params.name);
    },
  );
  for (const [verb, kind, pair] of [
    ['suspend', 'suspend-copy', 'suspended'],
    ['resync', 'resync-copy', 'copying'],
  ] as const) {
    server.post(
      `/volumes/:name/copies/:storage/${verb}`,
      { schema: { params: copy, response: begins } },
      ({ params }, reply): OperationRecord => {
        setPair(double, params.name, params.storage, pair);
        reply.status(202);
        return double.begin(kind, params.name);
      },
    );
  }
  server.post(
    '/volumes/:name/switch',
    { schema: { params: volume, body: SwitchCopy, response: begins } },
    ({ params, body }, reply) => {
      makePrimary(double, params.name, ({ storage, site }) =>
        'site' in body ? site === body.site : storage === body.storage,
      );
      reply.status(202);
      return double.begin('switch-copy', params.name, { handOverMs: 12.4, serveMs: 3 });
    },
  );
  server.post(
    '/volumes/:name/failover',
    { schema: { params: volume, body: FailOver, response: begins } },
    ({ params, body }, reply) => {
      const copies = double.volume(params.name).segments.flatMap((segment) => segment.copies);
      const to = copies.find(({ storage }) => storage === body.storage);
      if (to?.pair !== 'duplex' && !body.force) {
        throw new ControlError('conflict', `the copy on ${body.storage} is not duplex`);
      }
      makePrimary(double, params.name, ({ storage }) => storage === body.storage);
      reply.status(202);
      return double.begin('failover-copy', params.name);
    },
  );
}

function routeLogin(server: HttpServer, double: DirectoryDouble): void {
  const interfaces = new Map<string, InterfaceRecord>();
  server.post(
    '/volumes/:name/login',
    { schema: { params: z.object({ name: VolumeName }), body: Login, response: { 200: LoginView } } },
    ({ params, body }) => {
      const known = 'interface' in body ? interfaces.get(body.interface) : undefined;
      if (known === undefined) throw new ControlError('not-found', 'there is no such interface');
      const uri = double.volume(params.name).uris[0];
      return LoginView.parse({ uri, site: known.sites[0], gateway: `${known.sites[0]}-gw` });
    },
  );
  server.get('/interfaces', { schema: { response: { 200: z.array(InterfaceRecord) } } }, () => [
    ...interfaces.values(),
  ]);
  const one = z.object({ name: InterfaceName });
  server.put(
    '/interfaces/:name',
    { schema: { params: one, body: SetInterface, response: { 200: InterfaceRecord } } },
    ({ params, body }) => {
      const record = { ...body, name: params.name };
      interfaces.set(params.name, record);
      return record;
    },
  );
  server.delete('/interfaces/:name', { schema: { params: one } }, ({ params }, reply) => {
    if (!interfaces.delete(params.name)) throw new ControlError('not-found', 'there is no such interface');
    return reply.status(204).send();
  });
}

function routeGroups(server: HttpServer): void {
  const groups = new Map<string, ConsistencyGroupView>();
  const view = { response: { 200: ConsistencyGroupView, 201: ConsistencyGroupView } };
  server.post('/groups', { schema: { body: CreateGroup, ...view } }, ({ body }, reply) => {
    const { name, transfer, fence, fetch = null, journal = null } = body;
    const marks = { stored: 0, transferred: 0, applied: 0, discarded: 0, journal: { used: 0, size: 0 } };
    const secondaries = [{ storage: 'west-1', ...marks }];
    const made = {
      name,
      transfer,
      fence,
      fetch,
      journal,
      createdAt: MADE_AT,
      volumes: ['db'],
      sequence: 7,
      secondaries,
    };
    const group = ConsistencyGroupView.parse(made);
    groups.set(name, group);
    reply.status(201);
    return group;
  });
  server.get('/groups', { schema: { response: { 200: z.array(ConsistencyGroupView) } } }, () => [
    ...groups.values(),
  ]);
  const one = z.object({ name: GroupName });
  server.get('/groups/:name', { schema: { params: one, ...view } }, ({ params }) => {
    const group = groups.get(params.name);
    if (group === undefined) throw new ControlError('not-found', `there is no group ${params.name}`);
    return group;
  });
}
