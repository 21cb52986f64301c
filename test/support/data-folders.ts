/** Data folders of storage systems, as people copy them, put them back, and start them somewhere else. */

import { cp } from 'node:fs/promises';
import type { RoleHandle } from './cluster.ts';
import { takePorts } from './ports.ts';

/** The same flags with another folder, and ports that nobody has. */
export async function elsewhere(flags: readonly string[], data: string): Promise<string[]> {
  const [nbd, peer, manage] = await takePorts(3);
  const changed: Record<string, string> = {
    '--data': data,
    '--listen': `nbd://127.0.0.1:${nbd}`,
    '--peer': `127.0.0.1:${peer}`,
    '--manage': `http://127.0.0.1:${manage}`,
  };
  return flags.map((flag, at) => changed[flags[at - 1] ?? ''] ?? flag);
}

/** A copy of a stopped or running storage system's folder, as a backup program makes it. */
export async function copied(storage: RoleHandle): Promise<string> {
  const copy = `${storage.data}-copy`;
  await cp(storage.data, copy, { recursive: true });
  return copy;
}
