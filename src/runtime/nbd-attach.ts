/**
 * Exports as block devices of this host, by nbd-client and the kernel's NBD driver.
 *
 * nbd-client is told to use ioctls, not netlink: so it stays with the device, and its command line is where it says
 * which export the device is.
 *
 * Invariants:
 *  1. A device that was connected before is never touched by attaching.
 *  2. When attaching fails, the device is as free as it was.
 *  3. Detaching loses no write: what the kernel holds is written first, and a device in use stays.
 */

import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { ControlError, UsageError } from '../model/errors.ts';
import { type ExportUri, parseExportUri } from '../model/export-uri.ts';
import { flushUnused, lockDevice, type NbdDevice, nbdDevices } from './nbd-devices.ts';

export interface AttachOptions {
  /** Of the same export, the best first. */
  readonly uris: readonly string[];
  /** Otherwise a free one is taken. */
  readonly device?: string;
  readonly connections: number;
}

export interface Attached {
  readonly device: string;
  readonly uri: string;
}

/** Connecting goes through a handshake with somebody who may not answer. */
const NBD_CLIENT_MS_MAX = 30_000;
const SETTLE_MS_MAX = 10_000;
const LOOK_AGAIN_AFTER_MS = 50;
const STDERR_LENGTH_MAX = 4_096;
/** What a shell says of a program that there is not. */
const NOT_INSTALLED = 127;

/** @throws UsageError, ControlError */
export async function attachDevice({ uris, device, connections }: AttachOptions): Promise<Attached> {
  expectRoot('attaching');
  await expectDriver();
  const { path, unlock } = await freeDevice(device);
  const refusals: string[] = [];
  try {
    for (const uri of uris) {
      const failure = await connect(path, parseExportUri(uri), connections);
      if (failure === undefined) return { device: path, uri };
      refusals.push(`${uri}: ${failure}`);
    }
  } finally {
    await unlock();
  }
  throw new ControlError('failed', `${path} cannot be connected: ${refusals.join('; ')}`);
}

export interface DetachOptions {
  /** `/dev/nbdN`, or the name of the export. */
  readonly what: string;
  /** Also while it is in use, and without saving what was written. */
  readonly force: boolean;
}

/** @returns the device. @throws UsageError, ControlError */
export async function detachDevice({ what, force }: DetachOptions): Promise<string> {
  expectRoot('detaching');
  const { path } = connectedDevice(await nbdDevices(), what);
  if (!force) await flushUnused(path);
  const failure = await disconnect(path);
  if (failure === undefined) return path;
  throw new ControlError('failed', `${path} cannot be disconnected: ${failure}`);
}

function expectRoot(doing: string): void {
  if (process.geteuid?.() === 0) return;
  throw new UsageError('permission-denied', `${doing} a device needs root: run it with sudo`);
}

async function expectDriver(): Promise<void> {
  if ((await nbdDevices()).length > 0) return;
  const { status, stderr } = await run('modprobe', ['nbd']);
  if (status === 0 && (await nbdDevices()).length > 0) return;
  const reason = stderr === '' ? '' : ` (${stderr})`;
  throw new ControlError(
    'not-supported',
    `this kernel has no NBD driver${reason}: load the module nbd as root of the machine itself, not in a container; ` +
      'on Debian it comes with: apt-get install linux-image-amd64',
  );
}

async function freeDevice(
  wanted: string | undefined,
): Promise<{ path: string; unlock: () => Promise<void> }> {
  const devices = await nbdDevices();
  const candidates = wanted === undefined ? devices : devices.filter(({ path }) => path === wanted);
  if (candidates.length === 0) {
    throw new UsageError('not-found', `there is no ${wanted}: this kernel has ${devices.length} NBD devices`);
  }
  for (const { path } of candidates) {
    const unlock = await lockDevice(path);
    if (unlock === undefined) continue;
    // Looked at again: whoever had the lock before may have connected it.
    if (!(await deviceAt(path)).connected) return { path, unlock };
    await unlock();
  }
  const text =
    wanted === undefined
      ? `all ${devices.length} NBD devices are connected: detach one, or load the module with more (nbds_max=N)`
      : `${wanted} is connected already: detach it first, or leave --device out to take a free one`;
  throw new ControlError('in-use', text);
}

async function deviceAt(path: string): Promise<NbdDevice> {
  const device = (await nbdDevices()).find((candidate) => candidate.path === path);
  if (device === undefined) throw new UsageError('not-found', `${path} has gone`);
  return device;
}

/** @returns what went wrong; then the device is free again */
async function connect(path: string, uri: ExportUri, connections: number): Promise<string | undefined> {
  const { status, stderr } = await runNbdClient(attachArguments(path, uri, connections));
  if (status === 0 && (await settles(path, true))) return undefined;
  if ((await deviceAt(path)).connected) await disconnect(path);
  return (
    stderr || (status === 0 ? 'the kernel did not take the connection' : `nbd-client ended with ${status}`)
  );
}

/** The command line of nbd-client, less its name. */
export function attachArguments(path: string, uri: ExportUri, connections: number): string[] {
  const { address, exportName } = uri;
  const server = 'path' in address ? ['-unix', address.path] : [address.host, String(address.port)];
  return [...server, path, '-N', exportName, '-C', String(connections), '-persist', '-nonetlink'];
}

/** @returns what went wrong */
async function disconnect(path: string): Promise<string | undefined> {
  const { status, stderr } = await runNbdClient(['-d', path]);
  if (status === 0 && (await settles(path, false))) return undefined;
  return stderr || 'the kernel did not let go of it';
}

/** nbd-client returns a moment before the kernel has done it. */
async function settles(path: string, connected: boolean): Promise<boolean> {
  const deadlineMs = performance.now() + SETTLE_MS_MAX;
  while (performance.now() < deadlineMs) {
    const device = await deviceAt(path);
    if (device.connected === connected && (!connected || device.sizeBytes > 0)) return true;
    await sleep(LOOK_AGAIN_AFTER_MS);
  }
  return false;
}

/** @throws UsageError, ControlError */
export function connectedDevice(devices: readonly NbdDevice[], what: string): NbdDevice {
  const isPath = what.startsWith('/');
  const connected = devices.filter((device) => device.connected);
  const [found, ...others] = connected.filter(
    ({ path, exportName }) => what === (isPath ? path : exportName),
  );
  if (found === undefined) {
    const text = isPath ? `${what} is not connected` : `no device of this host is volume ${what}`;
    throw new UsageError(
      'not-found',
      `${text}; connected are: ${connected.map(({ path }) => path).join(' ') || 'none'}`,
    );
  }
  if (others.length === 0) return found;
  const paths = [found, ...others].map(({ path }) => path).join(' and ');
  throw new ControlError('conflict', `volume ${what} is ${paths}: say which device`);
}

interface Ended {
  /** -1: a signal ended it. */
  readonly status: number;
  /** What it said last, on one line. */
  readonly stderr: string;
}

async function runNbdClient(args: readonly string[]): Promise<Ended> {
  const ended = await run('nbd-client', args);
  if (ended.status !== NOT_INSTALLED) return ended;
  throw new UsageError('not-installed', 'nbd-client is not installed; run: apt-get install nbd-client');
}

/** Runs a program to its end; what it leaves behind in the background is not waited for. */
function run(program: string, args: readonly string[]): Promise<Ended> {
  const PATH = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, PATH },
      timeout: NBD_CLIENT_MS_MAX,
      killSignal: 'SIGKILL',
    });
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr = (stderr + text).slice(-STDERR_LENGTH_MAX);
    });
    child.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') return reject(error);
      resolve({ status: NOT_INSTALLED, stderr: `${program} is not installed` });
    });
    child.on('exit', (code) => {
      child.stderr.destroy();
      resolve({ status: code ?? -1, stderr: stderr.trim().split('\n').slice(-2).join(' ') });
    });
  });
}
