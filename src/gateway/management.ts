/** A gateway's management server: control-protocol/gateway-api.ts, and what every role answers. */

import { VolumeHosts, VolumeParams } from '../control-protocol/gateway-api.ts';
import type { Log } from '../model/log.ts';
import { createHttpServer, type HttpServer } from '../runtime/http-server.ts';
import type { Figures } from './exports.ts';
import type { Knowledge } from './knowledge.ts';
import { registerMetrics } from './metrics.ts';

export interface ManagementOptions {
  readonly knowledge: Knowledge;
  readonly log: Log;
  readonly hostsOf: (name: string) => number | Promise<number>;
  readonly figures: () => Figures;
}

export function createManagement({ knowledge, log, hostsOf, figures }: ManagementOptions): HttpServer {
  const server = createHttpServer({
    title: 'Volary gateway',
    log,
    notReady: () =>
      knowledge.information === undefined ? 'the directory has not told of any volumes yet' : undefined,
  });
  registerMetrics(server.metricsRegistry, figures, knowledge);
  server.after(() => {
    server.get(
      '/volumes/:name/hosts',
      { schema: { params: VolumeParams, response: { 200: VolumeHosts } } },
      async ({ params }) => ({ volume: params.name, connections: await hostsOf(params.name) }),
    );
  });
  return server;
}
