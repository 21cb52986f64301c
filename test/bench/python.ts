/** The scripts of this folder that use libnbd through Python. */

import { join } from 'node:path';
import { requireTool } from '../support/tools.ts';

/** Debian's own Python: the module is installed for that one, whatever comes first in PATH. */
export function pythonCommand(): string {
  requireTool('nbdsh', 'libnbd-bin python3-libnbd');
  return '/usr/bin/python3';
}

export function libnbdScript(name: string): string {
  return join(import.meta.dirname, name);
}
