/** `volary volume create`. */

import type { CreateVolume } from '../control-protocol/directory-api.ts';
import { GroupName, StorageName, VolumeName } from '../control-protocol/names.ts';
import { UsageError } from '../model/errors.ts';
import { parseDirectory, withDirectory } from './directory-option.ts';
import { parseAs, parseSingle, parseVolumeSize, single } from './values.ts';
import { type Action, verb } from './verb.ts';
import { formatMade } from './volume-text.ts';
import { conclude, parseWait, withWait } from './wait-option.ts';

type SegmentWish = NonNullable<CreateVolume['segments']>[number];

export const create = verb({
  command: 'create <name>',
  summary: 'Make a volume',
  flags: ['wait', 'no-wait'],
  completesOptions: { segment: 'storage', copy: 'storage', group: 'group' },
  describe: (yargs) =>
    withWait(
      withDirectory(
        yargs
          .usage(
            '$0 volume create NAME --size S\n\nMake a virtual volume; it takes space only as it is written.',
          )
          .positional('name', {
            describe: 'Its name, which is its export name for hosts: letters and digits, then also . _ -',
            type: 'string',
            demandOption: true,
          })
          .option('size', {
            describe: 'Its size: bytes, or 512MiB, 10GiB, …',
            type: 'string',
            requiresArg: true,
            demandOption: true,
          })
          .option('segment', {
            describe:
              'STORAGE or STORAGE:SIZE: where a part of it lies; may be repeated, parts follow one another in this order ' +
              '(otherwise the directory chooses)',
            type: 'string',
            array: true,
            requiresArg: true,
          })
          .option('group', {
            describe: 'Consistency group that it is part of',
            type: 'string',
            requiresArg: true,
          })
          .option('copy', {
            describe: 'Storage system that gets one more copy of the whole volume; may be repeated',
            type: 'string',
            array: true,
            requiresArg: true,
          })
          .option('transfer', {
            describe: 'How copies are kept: sync (every write is answered by all of them) or async',
            choices: ['sync', 'async'] as const,
            requiresArg: true,
          })
          .example('$0 volume create db --size 10GiB', 'Where there is room')
          .example('$0 volume create db --size 10GiB --segment east-1', 'On one storage system')
          .example(
            '$0 volume create db --size 10GiB --segment east-1:4GiB --segment west-1',
            'The first 4 GiB here, the rest there',
          )
          .example('$0 volume create db --size 10GiB --copy west-1', 'With a copy, kept in step'),
      ),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    const wait = parseWait(given);
    const segments = given.segment?.map(parseSegment);
    const copies = given.copy?.map((text) => parseAs('bad-name', StorageName, text));
    const transfer = single('transfer', given.transfer);
    const group = parseSingle('group', given.group, (text) => parseAs('bad-name', GroupName, text));
    const body = {
      name: parseAs('bad-name', VolumeName, given.name),
      sizeBytes: parseSingle('size', given.size, parseVolumeSize) ?? 0,
      ...(segments === undefined ? {} : { segments: segments }),
      ...(copies === undefined ? {} : { copies }),
      ...(transfer === undefined ? {} : { transfer }),
      ...(group === undefined ? {} : { group }),
    };
    return async (output) => {
      const operation = await directory.createVolume(body);
      await conclude(operation, {
        directory,
        output,
        wait,
        told: async () => {
          const volume = await directory.volume(body.name);
          output.result(volume, formatMade(volume));
        },
      });
    };
  },
});

/** STORAGE[:SIZE] */
export function parseSegment(text: string): SegmentWish {
  const [, name = '', size] = /^([^:]*)(?::(.*))?$/s.exec(text) ?? [];
  if (size === '') throw new UsageError('bad-size', `--segment ${text} has no size behind the colon`);
  const storage = parseAs('bad-name', StorageName, name);
  return size === undefined ? { storage } : { storage, sizeBytes: parseVolumeSize(size) };
}
