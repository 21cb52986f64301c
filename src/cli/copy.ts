/** `volary copy`: further copies of volumes on other storage systems. */

import type { Argv } from 'yargs';
import type { OperationRecord } from '../control-protocol/catalog.ts';
import type { DirectoryClient } from '../control-protocol/directory-client.ts';
import { StorageName, VolumeName } from '../control-protocol/names.ts';
import { failover, switchTo } from './copy-primary.ts';
import { wait } from './copy-wait.ts';
import { parseDirectory, withDirectory } from './directory-option.ts';
import { finish } from './finish.ts';
import type { Output } from './output.ts';
import { untilPairs } from './pair-wait.ts';
import { parseAs, single } from './values.ts';
import { type Action, family, verb } from './verb.ts';
import { parseWait, withWait } from './wait-option.ts';

function withCopy<T>(yargs: Argv<T>) {
  return yargs
    .positional('volume', { describe: 'The volume', type: 'string', demandOption: true })
    .positional('storage', {
      describe: 'The storage system that the copy is on',
      type: 'string',
      demandOption: true,
    });
}

interface CopyAction {
  readonly begin: (directory: DirectoryClient) => Promise<OperationRecord>;
  /** What has become of it. */
  readonly told: string;
  /** With --wait: until the copy is duplex; and what there is to say then. */
  readonly inStep?: { readonly volume: VolumeName; readonly storage: StorageName; readonly told: string };
}

interface Given {
  readonly directory?: string | undefined;
  readonly wait?: boolean | undefined;
  readonly 'no-wait'?: boolean | undefined;
}

/** Without --wait and --no-wait it waits for the operation, and not for the copying that follows. */
function actionOf(given: Given, { begin, told, inStep }: CopyAction): Action {
  const directory = parseDirectory(given);
  const waits = parseWait(given);
  return async (output: Output) => {
    const begun = await begin(directory);
    if (!waits) {
      output.result(begun, begun.id);
      return;
    }
    const finished = await finish(directory, begun.id);
    if (inStep === undefined || given.wait !== true) {
      output.result(finished, told);
      return;
    }
    const { volume, storage } = inStep;
    await untilPairs({ directory, volume, storage, pair: 'duplex' });
    output.result(finished, inStep.told);
  };
}

const add = verb({
  command: 'add <volume> <storage>',
  summary: 'Add a copy on another storage system',
  flags: ['wait', 'no-wait'],
  completes: ['volume', 'storage'],
  describe: (yargs) =>
    withWait(
      withDirectory(
        withCopy(
          yargs.usage(
            '$0 copy add VOLUME STORAGE\n\nAdd a copy of a volume on another storage system, while hosts use it. What is ' +
              'allocated is copied in the background; when the copy is "duplex" it holds every write that was answered, ' +
              'and can become primary. Returns when copying has begun; with --wait, when the copy is duplex.',
          ),
        )
          .option('transfer', {
            describe: 'How it is kept: sync (every write is answered by both) or async',
            choices: ['sync', 'async'] as const,
            requiresArg: true,
            defaultDescription: 'sync',
          })
          .example('$0 copy add db west-1', 'Copying begins')
          .example('$0 copy add db west-1 --wait', 'Returns when both are equal'),
      ),
    ),
  parse: (given): Action => {
    const volume = parseAs('bad-name', VolumeName, given.volume);
    const storage = parseAs('bad-name', StorageName, given.storage);
    const transfer = single('transfer', given.transfer);
    const body = { storage, ...(transfer === undefined ? {} : { transfer }) };
    return actionOf(given, {
      begin: (directory) => directory.addCopy(volume, body),
      told:
        `volume ${volume} has a copy on ${storage} now, which is being filled; ` +
        `this returns when it is equal: volary copy wait ${volume} --pair duplex`,
      inStep: { volume, storage, told: `volume ${volume} has a copy on ${storage}: duplex` },
    });
  },
});

const remove = verb({
  command: 'remove <volume> <storage>',
  summary: 'Remove a copy',
  flags: ['wait', 'no-wait'],
  completes: ['volume', 'storage'],
  describe: (yargs) =>
    withWait(
      withDirectory(
        withCopy(
          yargs.usage(
            '$0 copy remove VOLUME STORAGE\n\nRemove a copy of a volume, and its file. Not the primary.',
          ),
        ).example('$0 copy remove db west-1', 'To remove the primary, switch to another copy first'),
      ),
    ),
  parse: (given): Action => {
    const volume = parseAs('bad-name', VolumeName, given.volume);
    const storage = parseAs('bad-name', StorageName, given.storage);
    return actionOf(given, {
      begin: (directory) => directory.removeCopy(volume, storage),
      told: `volume ${volume} has no copy on ${storage} any more`,
    });
  },
});

const suspend = verb({
  command: 'suspend <volume> <storage>',
  summary: 'Let a copy not follow for now',
  flags: ['wait', 'no-wait'],
  completes: ['volume', 'storage'],
  describe: (yargs) =>
    withWait(
      withDirectory(
        withCopy(
          yargs.usage(
            '$0 copy suspend VOLUME STORAGE\n\nLet a copy not follow for now: it stays as it is, and what is written meanwhile ' +
              'is noted. "copy resync" copies that, and only that.',
          ),
        ).example('$0 copy suspend db west-1', 'Before work on the line to west, say'),
      ),
    ),
  parse: (given): Action => {
    const volume = parseAs('bad-name', VolumeName, given.volume);
    const storage = parseAs('bad-name', StorageName, given.storage);
    return actionOf(given, {
      begin: (directory) => directory.suspendCopy(volume, storage),
      told:
        `the copy of volume ${volume} on ${storage} is suspended; ` +
        `let it follow again with: volary copy resync ${volume} ${storage}`,
    });
  },
});

const resync = verb({
  command: 'resync <volume> <storage>',
  summary: 'Let a copy follow again',
  flags: ['wait', 'no-wait'],
  completes: ['volume', 'storage'],
  describe: (yargs) =>
    withWait(
      withDirectory(
        withCopy(
          yargs.usage(
            '$0 copy resync VOLUME STORAGE\n\nLet a suspended copy follow again: what it lacks is copied. Returns when that has ' +
              'begun; with --wait, when the copy is duplex.',
          ),
        )
          .example('$0 copy resync db west-1', 'What was written meanwhile is being copied')
          .example('$0 copy resync db west-1 --wait', 'Returns when both are equal'),
      ),
    ),
  parse: (given): Action => {
    const volume = parseAs('bad-name', VolumeName, given.volume);
    const storage = parseAs('bad-name', StorageName, given.storage);
    return actionOf(given, {
      begin: (directory) => directory.resyncCopy(volume, storage),
      told:
        `the copy of volume ${volume} on ${storage} follows again; ` +
        `this returns when it is equal: volary copy wait ${volume} --pair duplex`,
      inStep: { volume, storage, told: `the copy of volume ${volume} on ${storage} is duplex` },
    });
  },
});

export const copy = family('copy', 'Copies of volumes on other storage systems', [
  ...[add, remove, suspend, resync],
  ...[switchTo, failover, wait],
]);
