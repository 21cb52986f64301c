/** `volary attach`: a volume as a block device of this host. */

import type { DirectoryClient } from '../control-protocol/directory-client.ts';
import { type InterfaceName, VolumeName } from '../control-protocol/names.ts';
import { ControlError, UsageError } from '../model/errors.ts';
import { parseDirectory, withDirectory } from './directory-option.ts';
import { parseInterface } from './login.ts';
import { parseAs, parseCount, parseSingle } from './values.ts';
import { type Action, verb } from './verb.ts';

const CONNECTIONS_DEFAULT = 4;
const CONNECTIONS_MAX = 64;

export const attach = verb({
  command: 'attach <volume>',
  summary: 'Make a volume a block device of this host',
  completes: ['volume'],
  completesOptions: { interface: 'interface' },
  describe: (yargs) =>
    withDirectory(
      yargs
        .usage(
          '$0 attach VOLUME\n\nMake a volume a block device of this host; prints the device. Needs root, nbd-client, and a ' +
            'kernel with the NBD driver.',
        )
        .positional('volume', { describe: 'The volume', type: 'string', demandOption: true })
        .option('device', {
          describe: 'Which one: /dev/nbdN (otherwise the first free one)',
          type: 'string',
          requiresArg: true,
        })
        .option('connections', {
          describe: 'How many connections the kernel shares its requests out to',
          type: 'string',
          requiresArg: true,
          defaultDescription: String(CONNECTIONS_DEFAULT),
        })
        .option('interface', {
          describe: 'Where this host is: the nearest copy becomes primary (as "volary login" does)',
          type: 'string',
          requiresArg: true,
        })
        .example('$0 attach db', 'Prints /dev/nbd0, which can be formatted and mounted')
        .example('mount "$($0 attach db)" /mnt', 'In one go')
        .example('$0 attach db --interface rack7', 'At a gateway of the nearest copy')
        .example('$0 detach db', 'Undoes it'),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    const name = parseAs('bad-name', VolumeName, given.volume);
    const device = parseSingle('device', given.device, parseDevice);
    const connections =
      parseSingle('connections', given.connections, parseConnections) ?? CONNECTIONS_DEFAULT;
    const place = parseInterface(given.interface);
    return async (output) => {
      const uris = await urisOf(directory, name, place);
      const { attachDevice } = await import('../runtime/nbd-attach.ts');
      const attached = await attachDevice({ uris, connections, ...(device === undefined ? {} : { device }) });
      output.result({ volume: name, ...attached }, attached.device);
    };
  },
});

/** @throws ControlError */
async function urisOf(
  directory: DirectoryClient,
  name: VolumeName,
  place: InterfaceName | undefined,
): Promise<string[]> {
  if (place !== undefined) return [(await directory.login(name, { interface: place })).uri];
  const { uris } = await directory.volume(name);
  if (uris.length > 0) return uris;
  throw new ControlError('unavailable', `no gateway serves volume ${name}: start one`);
}

/** @throws UsageError */
export function parseDevice(text: string): string {
  if (/^\/dev\/nbd\d+$/.test(text)) return text;
  throw new UsageError('bad-argument', `"${text}" is no NBD device: give one such as /dev/nbd0`);
}

function parseConnections(text: string): number {
  const connections = parseCount('connections', text, CONNECTIONS_MAX);
  if (connections > 0) return connections;
  throw new UsageError('bad-argument', '--connections is 0: give at least 1');
}
