/**
 * A network of a test's own: hosts with an address each on one bridge, and packets from one host to another that are lost while
 * those of the other direction arrive. Needs root.
 *
 * 1. It meets nothing of the machine's. The test leaves the machine's network for a namespace of its own, in which the bridge is;
 *    what it connects to, and what it starts, is in there from then on. It cannot go back.
 * 2. It leaves nothing: a namespace ends with the last process in it, and those end with the test, even when it is killed.
 * 3. A cut is made where the packets arrive, and says nothing to who sends them, as a broken link does.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { readlinkSync } from 'node:fs';
import koffi from 'koffi';
import { eventually, requireTool, runOk } from './tools.ts';

export interface NetworkHost {
  readonly address: string;
  /** What a command line begins with, to be run there. */
  readonly command: readonly string[];
}

export interface Network {
  /** Where the test itself is. */
  readonly address: string;
  host(name: string): NetworkHost;
  /** Packets from one host to another (default: to all, the test among them) are lost, until it is mended. */
  cut(from: string, to?: string): Promise<void>;
  /** Packets to that host are lost, whoever sends them. */
  cutOffFromAll(to: string): Promise<void>;
  /** All that was cut. */
  mend(): Promise<void>;
  end(): Promise<void>;
}

const BRIDGE = 'bridge0';
const OWN_ADDRESS = '10.87.0.1';
const CLONE_NEWNET = 0x4000_0000;

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

interface Place extends NetworkHost {
  /** Keeps the namespace. */
  readonly keeper: ChildProcess;
}

/** Makes hosts of these names. Once in a process. */
export async function startNetwork(names: readonly string[]): Promise<Network> {
  const ip = requireTool('ip', 'iproute2');
  requireTool('iptables', 'iptables');
  await enterNamespace(ip);
  const hosts = new Map<string, Place>();
  for (const [index, name] of names.entries()) {
    hosts.set(name, await newHost(ip, `10.87.0.${index + 10}`, `host${index}`));
  }
  const found = (name: string): Place => {
    const host = hosts.get(name);
    if (host === undefined) throw new Error(`the network has no host ${name}`);
    return host;
  };
  const cuts: { readonly at: Place; readonly rule: readonly string[] }[] = [];
  const change = ({ command: [program = '', ...args] }: Place, rule: readonly string[]) =>
    runOk(program, [...args, requireTool('iptables', 'iptables'), '--wait', ...rule]);
  const lose = async (at: Place, rule: readonly string[]): Promise<void> => {
    cuts.push({ at, rule });
    await change(at, ['--append', ...rule, '--jump', 'DROP']);
  };
  return {
    address: OWN_ADDRESS,
    host: found,
    cut: (from, to) =>
      to === undefined
        ? lose(found(from), ['OUTPUT', '--out-interface', 'eth0'])
        : lose(found(to), ['INPUT', '--source', found(from).address]),
    cutOffFromAll: (to) => lose(found(to), ['INPUT', '--in-interface', 'eth0']),
    mend: async () => {
      for (const { at, rule } of cuts.splice(0)) await change(at, ['--delete', ...rule, '--jump', 'DROP']);
    },
    end: async () => {
      for (const { keeper } of hosts.values()) {
        keeper.kill('SIGKILL');
        running.delete(keeper);
      }
    },
  };
}

/** Node makes its sockets, and starts its programs, on its main thread: where that is, they are. */
async function enterNamespace(ip: string): Promise<void> {
  const unshare = koffi.load('libc.so.6').func('int unshare(int flags)');
  if (unshare(CLONE_NEWNET) !== 0) {
    throw new Error(`a network of its own needs root (errno ${koffi.errno()})`);
  }
  for (const line of [
    ['link', 'set', 'lo', 'up'],
    ['link', 'add', 'name', BRIDGE, 'type', 'bridge'],
    ['address', 'add', `${OWN_ADDRESS}/24`, 'dev', BRIDGE],
    ['link', 'set', BRIDGE, 'up'],
  ]) {
    await runOk(ip, line);
  }
}

async function newHost(ip: string, address: string, link: string): Promise<Place> {
  const own = readlinkSync('/proc/thread-self/ns/net');
  const keeper = spawn(
    requireTool('setpriv', 'util-linux'),
    ['--pdeathsig', 'KILL', requireTool('unshare', 'util-linux'), '--net', 'sleep', 'infinity'],
    { stdio: 'ignore' },
  );
  running.add(keeper);
  const path = `/proc/${keeper.pid}/ns/net`;
  await eventually('a namespace', () => (readlinkSync(path) === own ? undefined : true));
  const command = [requireTool('nsenter', 'util-linux'), `--net=${path}`];
  const [program = '', ...args] = command;
  const peer = ['peer', 'name', 'eth0', 'netns', `${keeper.pid}`];
  await runOk(ip, ['link', 'add', 'name', link, 'type', 'veth', ...peer]);
  await runOk(ip, ['link', 'set', link, 'master', BRIDGE, 'up']);
  for (const line of [
    ['link', 'set', 'lo', 'up'],
    ['address', 'add', `${address}/24`, 'dev', 'eth0'],
    ['link', 'set', 'eth0', 'up'],
  ]) {
    await runOk(program, [...args, ip, ...line]);
  }
  return { address, command, keeper };
}
