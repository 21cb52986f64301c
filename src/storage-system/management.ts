/** The management API of a storage system, as control-protocol/storage-api.ts and copy-groups.ts describe it, over HTTP. */

import { z } from 'zod';
import { GroupConfig, GroupView, HandOver } from '../control-protocol/copy-groups.ts';
import { RealVolumeId } from '../control-protocol/names.ts';
import { ChangeRealVolume, MakeRealVolume, RealVolumeView } from '../control-protocol/storage-api.ts';
import type { HttpServer } from '../runtime/http-server.ts';
import type { Members } from './members.ts';
import type { RealVolumes } from './real-volumes.ts';

const params = z.object({ id: RealVolumeId });
/** `?force` alone means yes. */
const force = z.object({ force: z.enum(['', 'true', 'false']).default('false') });

export function addManagement(server: HttpServer, realVolumes: RealVolumes, members: Members): void {
  // Behind what the server itself has been given, so that the OpenAPI document knows of them.
  server.after(() => {
    server.get('/real-volumes', { schema: { response: { 200: z.array(RealVolumeView) } } }, () =>
      realVolumes.views(),
    );
    server.get(
      '/real-volumes/:id',
      { schema: { params, response: { 200: RealVolumeView } } },
      async (request) => realVolumes.view(request.params.id),
    );
    server.put(
      '/real-volumes/:id',
      { schema: { params, body: MakeRealVolume, response: { 200: RealVolumeView } } },
      (request) => realVolumes.make(request.params.id, request.body),
    );
    server.patch(
      '/real-volumes/:id',
      { schema: { params, body: ChangeRealVolume, response: { 200: RealVolumeView } } },
      (request) => realVolumes.change(request.params.id, request.body),
    );
    server.delete(
      '/real-volumes/:id',
      { schema: { params, querystring: force, response: { 204: z.undefined() } } },
      async (request, reply) => {
        await realVolumes.remove(request.params.id, request.query.force !== 'false');
        return reply.status(204).send(undefined);
      },
    );
    server.get(
      '/real-volumes/:id/group',
      { schema: { params, response: { 200: GroupView } } },
      async (request) => members.view(request.params.id),
    );
    server.put(
      '/real-volumes/:id/group',
      { schema: { params, body: GroupConfig, response: { 200: GroupView } } },
      (request) => members.configure(request.params.id, request.body),
    );
    server.post(
      '/real-volumes/:id/hand-over',
      { schema: { params, body: HandOver, response: { 200: GroupView } } },
      (request) => members.handOver(request.params.id, request.body),
    );
  });
}
