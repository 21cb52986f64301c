/** Runs scripts in libnbd's shell. */

import { readFile } from 'node:fs/promises';
import { type RunResult, requireTool, runOk } from './tools.ts';

/**
 * Runs a Python file in nbdsh, without a ready-made handle. What `variables` names, the script finds in its
 * environment. Fails with the script's traceback when it raises.
 */
export async function nbdsh(
  scriptPath: string,
  variables: Readonly<Record<string, string>>,
  timeoutMs = 60_000,
): Promise<RunResult> {
  const script = await readFile(scriptPath, 'utf8');
  // The shell starts `python3` by name; python3-libnbd belongs to Debian's own, not to one that comes before it.
  const env = { ...variables, PATH: '/usr/sbin:/usr/bin:/sbin:/bin' };
  return runOk(requireTool('nbdsh', 'libnbd-bin python3-libnbd'), ['-n', '-c', script], { env, timeoutMs });
}
