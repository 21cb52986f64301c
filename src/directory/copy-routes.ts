/** The directory's API, as far as it is about copies: each route calls what does it, and nothing else. */

import { directoryRoutes as routes } from '../control-protocol/directory-routes.ts';
import type { HttpServer } from '../runtime/http-server.ts';
import type { Catalog } from './catalog.ts';
import type { CopyRequests } from './copy-requests.ts';
import type { GroupLeases } from './group-leases.ts';
import { createGroup, groupAsked, groupView, groupViews } from './groups.ts';
import { interfaceAsked, interfaceRecords, removeInterface, setInterface } from './interfaces.ts';
import type { Logins } from './login.ts';
import type { PairReports } from './pair-reports.ts';
import { shownOperation } from './views.ts';

export interface CopyRoutesOptions {
  readonly catalog: Catalog;
  readonly copies: CopyRequests;
  readonly logins: Logins;
  readonly pairs: PairReports;
  readonly leases: GroupLeases;
}

export function addCopyRoutes(server: HttpServer, options: CopyRoutesOptions): void {
  server.after(() => {
    addOperationRoutes(server, options);
    addRecordRoutes(server, options);
    addMemberRoutes(server, options);
  });
}

function addOperationRoutes(server: HttpServer, { copies, logins }: CopyRoutesOptions): void {
  server.post('/volumes/:name/copies', { schema: routes.addCopy }, async ({ params, body }, reply) =>
    reply.status(202).send(shownOperation(await copies.add(params.name, body))),
  );
  server.delete('/volumes/:name/copies/:storage', { schema: routes.removeCopy }, async ({ params }, reply) =>
    reply.status(202).send(shownOperation(await copies.remove(params.name, params.storage))),
  );
  server.post(
    '/volumes/:name/copies/:storage/suspend',
    { schema: routes.suspendCopy },
    async ({ params }, reply) =>
      reply.status(202).send(shownOperation(await copies.want(params.name, params.storage, 'suspended'))),
  );
  server.post(
    '/volumes/:name/copies/:storage/resync',
    { schema: routes.resyncCopy },
    async ({ params }, reply) =>
      reply.status(202).send(shownOperation(await copies.want(params.name, params.storage, 'following'))),
  );
  server.post('/volumes/:name/switch', { schema: routes.switchCopy }, async ({ params, body }, reply) =>
    reply.status(202).send(shownOperation(await copies.switch(params.name, body))),
  );
  server.post('/volumes/:name/failover', { schema: routes.failOver }, async ({ params, body }, reply) =>
    reply.status(202).send(shownOperation(await copies.failOver(params.name, body))),
  );
  server.post('/volumes/:name/login', { schema: routes.login }, ({ params, body }) =>
    logins.login(params.name, body),
  );
}

function addRecordRoutes(server: HttpServer, { catalog }: CopyRoutesOptions): void {
  const { view } = catalog;
  server.get('/interfaces', { schema: routes.interfaces }, () => interfaceRecords(view));
  server.get('/interfaces/:name', { schema: routes.interface }, ({ params }) =>
    interfaceAsked(view, params.name),
  );
  server.put('/interfaces/:name', { schema: routes.setInterface }, ({ params, body }) =>
    setInterface(catalog, params.name, body),
  );
  server.delete('/interfaces/:name', { schema: routes.removeInterface }, async ({ params }, reply) => {
    await removeInterface(catalog, params.name);
    return reply.status(204).send(undefined);
  });
  server.get('/groups', { schema: routes.groups }, () => groupViews(view));
  server.get('/groups/:name', { schema: routes.group }, ({ params }) =>
    groupView(view, groupAsked(view, params.name)),
  );
  server.post('/groups', { schema: routes.createGroup }, async ({ body }, reply) =>
    reply.status(201).send(await createGroup(catalog, body)),
  );
}

function addMemberRoutes(server: HttpServer, { pairs, leases }: CopyRoutesOptions): void {
  server.post('/pairs', { schema: routes.reportPair }, ({ body }) => pairs.report(body));
  server.post('/leases', { schema: routes.renewLeases }, ({ body }) => leases.answer(body));
  server.post('/discards', { schema: routes.reportDiscard }, async ({ body }, reply) => {
    await pairs.discarded(body);
    return reply.status(204).send(undefined);
  });
}
