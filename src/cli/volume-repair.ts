/** `volary volume repair`: what has failed of a volume is used again, because somebody says so. */

import type { RepairView } from '../control-protocol/directory-api.ts';
import { VolumeName } from '../control-protocol/names.ts';
import { ControlError } from '../model/errors.ts';
import { parseDirectory, withDirectory } from './directory-option.ts';
import { withProgress } from './progress.ts';
import { parseAs } from './values.ts';
import { type Action, verb } from './verb.ts';

const MEANING =
  'writes that were not flushed before the failure may be lost: disconnect its hosts, connect them again, and check the file system';

export const repair = verb({
  command: 'repair <name>',
  summary: 'Take back what has failed of a volume',
  completes: ['volume'],
  describe: (yargs) =>
    withDirectory(
      yargs
        .usage(
          '$0 volume repair NAME\n\nTake back what has failed of a volume, when its disk is in order again and its files are there.\n' +
            'Writes that were not flushed before the failure may be lost: unmount it everywhere and disconnect its hosts\n' +
            '(a gateway that has seen the failure takes no writes until its last host has gone), then check the file system.',
        )
        .positional('name', { describe: 'The volume', type: 'string', demandOption: true })
        .example('$0 volume show db', 'Says what has failed, and why')
        .example('$0 volume repair db', 'Takes it back, and says what that was'),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    const name = parseAs('bad-name', VolumeName, given.name);
    return async (output) => {
      const done = await withProgress(directory.repairVolume(name), () => `repairing volume ${name}`);
      refuseRemaining(done);
      output.result(done, formatRepair(done));
    };
  },
});

/** @throws ControlError: it is not all in order now */
function refuseRemaining({ volume, repaired, remaining }: RepairView): void {
  if (remaining.length === 0) return;
  const left = remaining.map(lineOf).join('; ');
  const done =
    repaired.length === 0 ? '' : `; taken back, and ${MEANING}: ${repaired.map(lineOf).join('; ')}`;
  throw new ControlError('failed', `volume ${volume} is not in order yet: ${left}${done}`);
}

export function formatRepair({ volume, repaired }: RepairView): string {
  if (repaired.length === 0) return `nothing of volume ${volume} has failed`;
  return [
    ...repaired.map((one) => `taken back   ${lineOf(one)}`),
    `volume ${volume} can be used again; ${MEANING}`,
  ].join('\n');
}

function lineOf({ realVolume, storage, reason }: RepairView['repaired'][number]): string {
  return `${realVolume} of ${storage} (${reason})`;
}
