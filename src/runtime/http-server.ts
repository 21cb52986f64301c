/**
 * The HTTP server of a role: messages checked against zod schemas, errors as `{"error":{"code","message"}}`, and what every role
 * answers: /healthz (the process lives), /readyz (it does its work), /metrics (Prometheus) and /openapi.json.
 */

import swagger from '@fastify/swagger';
import { collectDefaultMetrics, Registry } from '@prometheus-io/client';
import fastify, { type FastifyError, type FastifyReply } from 'fastify';
import {
  hasZodFastifySchemaValidationErrors,
  jsonSchemaTransform,
  serializerCompiler,
  validatorCompiler,
  type ZodTypeProvider,
} from 'fastify-type-provider-zod';
import { ControlError, type ControlErrorCode, VolaryError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';

/** The one map from a ControlError to an HTTP status. */
const STATUS: Record<ControlErrorCode, number> = {
  'bad-request': 400,
  'not-found': 404,
  exists: 409,
  conflict: 409,
  'in-use': 409,
  'no-space': 507,
  'stale-epoch': 409,
  'wrong-cluster': 409,
  'wrong-identity': 409,
  'not-supported': 501,
  unavailable: 503,
  timeout: 504,
  unreachable: 502,
  cancelled: 409,
  failed: 500,
};

const BODY_BYTES_MAX = 1024 * 1024;
/** How often the lag of the event loop is looked at: each time wakes a process that has nothing to do. */
const LAG_EVERY_MS = 100;

export interface HttpServerOptions {
  /** Title of the API: `Volary directory`. */
  readonly title: string;
  readonly log: Log;
  /** undefined: ready. Otherwise what is missing. */
  readonly notReady: () => string | undefined;
}

export type HttpServer = ReturnType<typeof createHttpServer>;

/**
 * Routes are added by the caller (with zod schemas), then listenHttp of listen.ts; `server.close()` ends it, event streams included when they
 * listen to `request.signal`-like ends of their own. `metricsRegistry` is what /metrics shows.
 */
export function createHttpServer(options: HttpServerOptions) {
  const metrics = new Registry();
  collectDefaultMetrics({ register: metrics, eventLoopMonitoringPrecision: LAG_EVERY_MS });
  const server = fastify({
    logger: false,
    bodyLimit: BODY_BYTES_MAX,
    forceCloseConnections: true,
    // What fastify refuses before there is a route: a URL that is no URL, or too long.
    frameworkErrors: (error, _request, reply: FastifyReply) => {
      const { status, code, message } = failureOf(error);
      reply.status(status).send({ error: { code, message } });
    },
    routerOptions: { maxParamLength: 1024 },
  }).withTypeProvider<ZodTypeProvider>();
  // Not before: what keeps it from listening is told by `listen`.
  server.server.once('listening', () =>
    server.server.on('error', (error) => options.log.error({ error: error.message }, 'accepting failed')),
  );
  server.setValidatorCompiler(validatorCompiler);
  server.setSerializerCompiler(serializerCompiler);
  server.setErrorHandler((error: FastifyError, _request, reply) => {
    const { status, code, message } = failureOf(error);
    if (status === 500 && !(error instanceof VolaryError)) {
      options.log.error({ error: error.stack ?? error.message }, 'a request failed by our own mistake');
    }
    return reply.status(status).send({ error: { code, message } });
  });
  server.setNotFoundHandler((request, reply) =>
    reply
      .status(404)
      .send({ error: { code: 'not-found', message: `there is no ${request.method} ${request.url}` } }),
  );
  server.register(swagger, {
    openapi: { info: { title: options.title, version: '1' } },
    transform: jsonSchemaTransform,
  });
  server.after(() => {
    server.get('/healthz', { schema: { hide: true } }, () => ({ ok: true }));
    server.get('/readyz', { schema: { hide: true } }, (_request, reply) => {
      const missing = options.notReady();
      return missing === undefined
        ? { ready: true }
        : reply.status(503).send({ ready: false, reason: missing });
    });
    server.get('/metrics', { schema: { hide: true } }, async (_request, reply) => {
      reply.header('content-type', metrics.contentType);
      return reply.send(await metrics.metrics());
    });
    server.get('/openapi.json', { schema: { hide: true } }, () => server.swagger());
  });
  return Object.assign(server, { metricsRegistry: metrics });
}

function failureOf(error: FastifyError): { status: number; code: string; message: string } {
  if (error instanceof ControlError)
    return { status: STATUS[error.code], code: error.code, message: error.message };
  if (error instanceof VolaryError) return { status: 500, code: error.code, message: error.message };
  if (hasZodFastifySchemaValidationErrors(error)) {
    const message = error.validation
      .map(({ instancePath, message }) => `${instancePath} ${message}`.trim())
      .join('; ');
    return { status: 400, code: 'bad-request', message };
  }
  const status = error.statusCode ?? 500;
  if (status < 500) return { status, code: 'bad-request', message: error.message };
  return { status: 500, code: 'failed', message: 'an internal error; the log says more' };
}
