/**
 * `volary run ROLE`: one role of the cluster in this process, as compose files, service managers and `volary up` run it.
 *
 * Under a supervisor (`--supervised`) it also stops when the supervisor is gone, however that ended: the IPC channel
 * between them closes, and nobody else is there to stop it.
 */

import { resolve } from 'node:path';
import type { Argv } from 'yargs';
import {
  DirectorySettings,
  GatewaySettings,
  type MemberAddresses,
  StorageSettings,
  wildcardAmong,
} from '../control-protocol/settings.ts';
import { UsageError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import { DEFAULT_PORT } from '../model/nbd-uri.ts';
import type { Service } from '../model/service.ts';
import { createLogger } from '../runtime/logger.ts';
import { keepPoolFromInterrupting } from '../runtime/pool-threads.ts';
import { firstStopSignal } from '../runtime/stop-signal.ts';
import type { Output } from './output.ts';
import { readSettings } from './settings.ts';
import { family, type Verb, verb } from './verb.ts';

/** Nobody is there to wait for a role that does not come to its end after its supervisor has died. */
const ORPHAN_STOP_MS = 10_000;

const LOOPBACK = '127.0.0.1';
const ANY_LOOPBACK_PORT = { host: LOOPBACK, port: 0 };
const DIRECTORY_PORT = 9800;
export const DIRECTORY_URL = `http://${LOOPBACK}:${DIRECTORY_PORT}`;

export interface RunOptions {
  readonly role: Role;
  /** `signal`: it is not to be started any more; one that waits for something rejects with an AbortError. */
  readonly start: (log: Log, signal: AbortSignal) => Promise<Service>;
  readonly supervised: boolean;
}

type Role = 'directory' | 'storage' | 'gateway';

function role(name: Role, summary: string, describe: (yargs: Argv) => Argv): Verb {
  return verb({
    command: name,
    summary,
    flags: name === 'storage' ? ['supervised', 'restored'] : ['supervised'],
    describe: (yargs) => describeCommon(describe(yargs.usage(`$0 run ${name}\n\n${summary}.`))),
    parse: (given) => {
      const options = parseRun(name, given, process.env);
      return (output) => runRole(options, output);
    },
  });
}

function text(describe: string, defaultDescription?: string) {
  const shown = defaultDescription === undefined ? {} : { defaultDescription };
  return { describe, type: 'string', requiresArg: true, ...shown } as const;
}

function describeDirectory(yargs: Argv): Argv {
  return yargs
    .option('data', text('Data folder', './volary-data/directory'))
    .option('listen', text('Where to listen: http://HOST:PORT', DIRECTORY_URL));
}

function describeStorage(yargs: Argv): Argv {
  return describeMember(yargs)
    .option('listen', text('Where real volumes are exported: nbd://HOST:PORT'))
    .option('peer', text('Where other storage systems find it: HOST:PORT'))
    .option('restored', {
      describe: 'The data folder was put back from a backup: it is used without what was written since',
      type: 'boolean',
      default: false,
    })
    .option('capacity', text('Bytes that its real volumes may have in sum', 'the size of its file system'));
}

function describeGateway(yargs: Argv): Argv {
  return describeMember(yargs)
    .option('listen', {
      ...text('Where hosts connect: nbd://HOST:PORT or nbd+unix:///?socket=PATH; may be repeated'),
      array: true,
      defaultDescription: `nbd://${LOOPBACK}:${DEFAULT_PORT}`,
    })
    .option('workers', text('Processes that serve hosts', '1'))
    .option('reconnect', text('How long requests wait for a storage system that is away', '30s'));
}

function describeMember(yargs: Argv): Argv {
  return yargs
    .option('name', text('Its name in the cluster'))
    .option('site', text('The site that it stands in'))
    .option('data', text('Data folder', './volary-data/NAME'))
    .option('directory', text('URL of the directory', DIRECTORY_URL))
    .option('manage', text('Where to answer /healthz, /readyz and /metrics: http://HOST:PORT', 'a free port'))
    .option('advertise', text('The host name or address that others are told', 'as listened on'));
}

function describeCommon(yargs: Argv): Argv {
  return yargs
    .option('config', text('YAML file with settings: keys as the names of the options'))
    .option('supervised', { type: 'boolean', default: false, hidden: true })
    .epilogue(
      'Each option can also be a VOLARY_* variable (VOLARY_NAME, VOLARY_LISTEN, …) or stand in the file of --config; an option ' +
        'goes before a variable, a variable before the file. Prints "ready …" once it accepts work. SIGTERM and SIGINT finish ' +
        'what is in flight and end it; a second one ends it at once. VOLARY_LOG_LEVEL (debug, info, warn, error, silent; ' +
        'default info) says how much goes to stderr.',
    );
}

type Given = Readonly<Record<string, unknown>>;

/** @throws UsageError */
export function parseRun(role: Role, given: Given, environment: NodeJS.ProcessEnv): RunOptions {
  const lists = role === 'gateway' ? ['listen'] : [];
  const twice = Object.keys(given).find((key) => Array.isArray(given[key]) && ![...lists, '_'].includes(key));
  if (twice !== undefined) {
    throw new UsageError('bad-argument', `--${twice} is given more than once: give it once`);
  }
  const file = typeof given.config === 'string' ? given.config : undefined;
  const from = { flags: given, environment, file };
  return { role, start: starters[role](from), supervised: given.supervised === true };
}

interface From {
  readonly flags: Given;
  readonly environment: NodeJS.ProcessEnv;
  readonly file: string | undefined;
}

function dataFolderOf(name: string): string {
  return resolve('volary-data', name);
}

/** Settings are read at once; the role's code is loaded when it is started, and only that role's. */
const starters: Record<Role, (from: From) => RunOptions['start']> = {
  directory: (from) => {
    const defaults = { data: dataFolderOf('directory'), listen: { host: LOOPBACK, port: DIRECTORY_PORT } };
    const { data, ...settings } = readSettings(DirectorySettings, { ...from, defaults: () => defaults });
    return async (log) => {
      const { startDirectory } = await import('../directory/service.ts');
      return startDirectory({ dataFolder: data, ...settings, log });
    };
  },
  storage: (from) => {
    const settings = readSettings(StorageSettings, {
      ...from,
      defaults: ({ name }) => ({ ...(name && { data: dataFolderOf(name) }), ...memberDefaults }),
    });
    refuseWildcard(settings);
    const { data, directory, capacity, advertise, ...rest } = settings;
    return async (log, signal) => {
      const { startStorageSystem } = await import('../storage-system/service.ts');
      return startStorageSystem({
        dataFolder: data,
        directoryUrl: directory,
        ...(advertise === undefined ? {} : { advertise }),
        ...(capacity === undefined ? {} : { capacityBytes: capacity }),
        isRestored: from.flags.restored === true,
        ...rest,
        ...{ signal, log },
      });
    };
  },
  gateway: (from) => {
    const settings = readSettings(GatewaySettings, {
      ...from,
      defaults: ({ name }) => ({
        ...(name && { data: dataFolderOf(name) }),
        ...memberDefaults,
        listen: [{ host: LOOPBACK, port: DEFAULT_PORT }],
        workers: 1,
      }),
    });
    refuseWildcard(settings);
    const { data, directory, reconnect, advertise, ...rest } = settings;
    return async (log) => {
      const { startGateway } = await import('../gateway/service.ts');
      return startGateway({
        dataFolder: data,
        directoryUrl: directory,
        ...(advertise === undefined ? {} : { advertise }),
        ...(reconnect === undefined ? {} : { reconnectMs: reconnect }),
        ...rest,
        log,
      });
    };
  },
};

/** @throws UsageError */
function refuseWildcard(settings: MemberAddresses & { readonly advertise?: string | undefined }): void {
  const found = settings.advertise === undefined ? wildcardAmong(settings) : undefined;
  if (found === undefined) return;
  throw new UsageError(
    'bad-argument',
    `${found.key} is on "${found.host}", every address of this machine, and others are to be told one: give --advertise HOST, too`,
  );
}

const memberDefaults = { directory: DIRECTORY_URL, manage: ANY_LOOPBACK_PORT };

/** Runs the role until a signal asks it to stop, or its supervisor is gone. */
async function runRole({ role, start, supervised }: RunOptions, output: Output): Promise<void> {
  const log = createLogger(process.env);
  const stopAsked = Promise.race([firstStopSignal(), ...(supervised ? [supervisorGone()] : [])]);
  const starting = new AbortController();
  void stopAsked.then(() => starting.abort());
  await keepPoolFromInterrupting();
  try {
    const service = await startUnlessStopped(() => start(log, starting.signal));
    try {
      if (service !== undefined) {
        const { document, sentence } = service.ready;
        log.info({ ready: document }, `${role} is ready`);
        output.result(document, sentence);
      }
      const lost = service?.lost;
      const cause = await Promise.race([stopAsked, ...(lost === undefined ? [] : [lost])]);
      log.info({ cause }, 'stopping');
    } finally {
      await service?.stop();
    }
  } finally {
    if (process.connected) process.disconnect(); // being listened to, the channel would keep the process
  }
  log.info({}, 'stopped');
}

/** Undefined: it was asked to stop while it waited for something. */
async function startUnlessStopped(start: () => Promise<Service>): Promise<Service | undefined> {
  try {
    return await start();
  } catch (error) {
    if (error instanceof Error && error.name === 'AbortError') return undefined;
    throw error;
  }
}

/** Resolves when the channel to the supervisor has closed; from then on the process has a limited time to end. */
function supervisorGone(): Promise<string> {
  return new Promise((resolve) => {
    const gone = (): void => {
      resolve('the supervisor is gone');
      setTimeout(() => process.exit(1), ORPHAN_STOP_MS).unref();
    };
    if (process.connected) process.once('disconnect', gone);
    else gone(); // it was gone before we had started
  });
}

export const run = family('run', 'Run one role of a cluster', [
  role('directory', 'Run the directory: catalog, operations, HTTP API', describeDirectory),
  role('storage', 'Run a storage system: real volumes in a data folder', describeStorage),
  role('gateway', 'Run a gateway: virtual volumes for hosts', describeGateway),
]);
