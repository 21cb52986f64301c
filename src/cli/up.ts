/**
 * `volary up`: a whole cluster on this machine, in the foreground. What happens to its roles goes to stderr (sentences for a person,
 * JSON lines with --json); their own logs go to one file.
 */

import { join, relative, resolve } from 'node:path';
import type { Argv } from 'yargs';
import { createLogger } from '../runtime/logger.ts';
import { firstStopSignal } from '../runtime/stop-signal.ts';
import type { Change } from '../supervisor/role-keeper.ts';
import { type ClusterReady, Supervisor } from '../supervisor/supervisor.ts';
import { defaultTopology, Topology } from '../supervisor/topology.ts';
import type { Output } from './output.ts';
import { DIRECTORY_URL } from './run.ts';
import { refusal } from './settings.ts';
import { parseSingle } from './values.ts';
import { verb } from './verb.ts';
import { readYamlFile } from './yaml-file.ts';

const DATA_FOLDER = './volary-data';
const CLEAR_LINE = '\r\u001b[K';

interface UpOptions {
  readonly folder: string;
  readonly topology: Topology;
  readonly restart: boolean;
}

function describeUp(yargs: Argv) {
  return yargs
    .usage('$0 up\n\nRun a whole cluster on this machine.')
    .option('data', {
      describe: 'Folder for everything that it keeps; made when missing',
      type: 'string',
      requiresArg: true,
      defaultDescription: DATA_FOLDER,
    })
    .option('topology', {
      describe: 'YAML file that says which roles there are, and where each listens',
      type: 'string',
      requiresArg: true,
      defaultDescription: 'two sites, two storage systems and a gateway in each',
    })
    .option('no-restart', {
      describe: 'Leave a role that has died away, instead of starting it again',
      type: 'boolean',
      default: false,
    })
    .example('$0 up', 'Two sites, on the usual ports, with data in ./volary-data')
    .example('$0 up --data /srv/volary --topology cluster.yaml', 'Your own')
    .epilogue(
      'Prints "ready …" and what to type next when all roles do their work. Every role is a process of its own; Ctrl-C (SIGINT) or ' +
        'SIGTERM stops gateways, storage systems and the directory, in this order. The data stays.',
    );
}

type Described = ReturnType<ReturnType<typeof describeUp>['parseSync']>;

function parseUp(given: Described): UpOptions {
  return {
    folder: resolve(parseSingle('data', given.data, String) ?? DATA_FOLDER),
    topology: parseSingle('topology', given.topology, readTopology) ?? defaultTopology(),
    restart: !given['no-restart'],
  };
}

function readTopology(file: string): Topology {
  const result = Topology.safeParse(readYamlFile(file));
  if (result.success) return result.data;
  throw refusal(result.error, (key) => `${file}: ${key}`);
}

export const up = verb({
  command: 'up',
  summary: 'Run a whole cluster on this machine',
  flags: ['no-restart'],
  describe: describeUp,
  parse: (given) => {
    const options = parseUp(given);
    return (output) => runCluster(options, output);
  },
});

/** Runs the cluster until a signal asks it to stop. */
async function runCluster({ folder, topology, restart }: UpOptions, output: Output): Promise<void> {
  const log = createLogger(process.env);
  const stopAsked = firstStopSignal();
  const counter = new ReadyCounter(countOf(topology), output);
  const supervisor = new Supervisor({
    folder,
    topology,
    restart,
    command: [process.execPath, ...process.execArgv, join(import.meta.dirname, 'main.ts')],
    environment: process.env,
    onChange: (role, change) => {
      counter.count(change);
      if (output.json) log.info({ role, ...change }, `${role}: ${change.state}`);
      else tell(role, change, output);
    },
  });
  if (!output.json) output.note(`starting ${countOf(topology)} processes; data in ${folder}`);
  const started = supervisor.start();
  try {
    const ready = await Promise.race([started, stopAsked.then(() => undefined)]);
    if (ready !== undefined) {
      output.result(ready, screen(ready, folder));
      await stopAsked;
    }
    if (!output.json) output.note('stopping: gateways, storage systems, the directory');
  } finally {
    await supervisor.stop();
    await started.catch(() => undefined); // it has been told above, unless it is that it was stopped
  }
}

/** On a terminal, how far the start is; the line is taken away before anything else is written there. */
class ReadyCounter {
  readonly #all: number;
  readonly #output: Output;
  readonly #isShown: boolean;
  #ready = 0;

  constructor(all: number, output: Output) {
    this.#all = all;
    this.#output = output;
    this.#isShown = !output.json && process.stdout.isTTY === true && process.stderr.isTTY === true;
  }

  count(change: Change): void {
    if (!this.#isShown || this.#ready >= this.#all) return;
    if (change.state === 'ready' && change.restarts === 0) this.#ready += 1;
    const isOver = change.state === 'ended' || this.#ready === this.#all;
    this.#output.draw(isOver ? CLEAR_LINE : `${CLEAR_LINE}${this.#ready} of ${this.#all} are ready`);
  }
}

function countOf({ gateways, storage }: Topology): number {
  return 1 + Object.keys(gateways).length + Object.keys(storage).length;
}

/** The first start is told by the screen, and the end by what is typed to bring it about. */
function tell(role: string, change: Change, output: Output): void {
  if (change.state === 'ready') {
    if (change.restarts > 0) output.note(`${role} is back (process ${change.pid})`);
    return;
  }
  const { end, restartMs, pid } = change;
  if (end.code === 0 && restartMs === undefined) return;
  const how = end.failure?.message ?? end.signal ?? `exit status ${end.code}`;
  const next = restartMs === undefined ? 'it stays away' : `starting it again in ${restartMs} ms`;
  output.note(`${role} has ended (process ${pid}: ${how}); ${next}`);
}

/** What a newcomer sees: that it runs, where everything is, and what can be typed into another terminal. */
function screen(ready: ClusterReady, folder: string): string {
  const command = commandFrom(process.cwd());
  const [gateway] = Object.values(ready.gateways);
  const lines = [
    `ready ${ready.directory}`,
    '',
    `  directory       ${ready.directory}   process ${ready.directoryPid}`,
  ];
  const members = (kind: string, of: ClusterReady['gateways']) => {
    for (const [name, { site, uri, pid }] of Object.entries(of)) {
      lines.push(`  ${kind} ${name.padEnd(12)} ${site.padEnd(8)} ${uri}   process ${pid}`);
    }
  };
  members('gateway        ', ready.gateways);
  members('storage system ', ready.storage);
  lines.push(`  data            ${folder}`, `  log             ${ready.log}`, '');
  lines.push('Type into another terminal:', '');
  if (ready.directory !== DIRECTORY_URL) lines.push(`  export VOLARY_DIRECTORY=${ready.directory}`);
  lines.push(
    ...table([
      [`${command} volume create demo --size 1GiB --wait`, 'a volume; the directory finds a place for it'],
      [`${command} volume show demo`, 'where it lies'],
      [`${command} status --watch`, 'how everybody is'],
      [`${command} events --follow`, 'what happens: kill -9 a role, and look'],
      ...(gateway === undefined ? [] : hostCommands(gateway.uri)),
    ]),
    '',
    'Ctrl-C stops the cluster; its data stays.',
  );
  return lines.join('\n');
}

function hostCommands(uri: string): [string, string][] {
  const commands: [string, string][] = [[`nbdinfo ${uri}/demo`, 'what a host sees (Debian: libnbd-bin)']];
  const [, host, port] = /^nbd:\/\/(.+):(\d+)$/.exec(uri) ?? [];
  if (host === undefined || port === undefined) return commands; // nbd-client has other words for a socket
  commands.push(
    [`sudo modprobe nbd`, 'the kernel driver; then a disk of this machine:'],
    [`sudo nbd-client ${host.replaceAll(/[[\]]/g, '')} ${port} /dev/nbd0 -N demo`, '(nbd-client)'],
    ['sudo mkfs.ext4 /dev/nbd0 && sudo mount /dev/nbd0 /mnt', 'with a file system on it'],
    ['sudo umount /mnt && sudo nbd-client -d /dev/nbd0', 'and away again'],
  );
  return commands;
}

function table(rows: readonly (readonly [string, string])[]): string[] {
  const width = Math.max(...rows.map(([command]) => command.length));
  return rows.map(([command, meaning]) => `  ${command.padEnd(width)}   ${meaning}`);
}

/** bin/volary as it is typed in that folder. */
function commandFrom(folder: string): string {
  const path = join(import.meta.dirname, '../../bin/volary');
  const short = relative(folder, path);
  return short.startsWith('..') ? path : short;
}
