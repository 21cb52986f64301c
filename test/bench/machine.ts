/** What the figures were measured on, and with. */

import { cpus, release, totalmem } from 'node:os';
import { requireTool, runOk } from '../support/tools.ts';

export interface Machine {
  readonly processors: string;
  readonly memoryGib: number;
  readonly kernel: string;
  readonly node: string;
  readonly fio: string;
  readonly nbdkit: string;
  readonly qemuNbd: string;
}

async function version(command: string, debianPackage: string): Promise<string> {
  const { stdout } = await runOk(requireTool(command, debianPackage), ['--version']);
  const number = /\d+\.\d+[\d.]*/.exec(stdout)?.[0];
  if (number === undefined) throw new Error(`${command} --version: ${stdout}`);
  return number;
}

export async function describeMachine(): Promise<Machine> {
  const all = cpus();
  return {
    processors: `${all.length} × ${all[0]?.model.trim() ?? 'unknown'}`,
    memoryGib: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    node: process.versions.node,
    fio: await version('fio', 'fio'),
    nbdkit: await version('nbdkit', 'nbdkit'),
    qemuNbd: await version('qemu-nbd', 'qemu-utils'),
  };
}
