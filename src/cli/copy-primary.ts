/** `volary copy switch` and `volary copy failover`: which copy is the primary, that hosts read and write. */

import type { OperationRecord } from '../control-protocol/catalog.ts';
import type { SwitchCopy, VolumeView } from '../control-protocol/directory-api.ts';
import { SiteName, StorageName, VolumeName } from '../control-protocol/names.ts';
import { UsageError } from '../model/errors.ts';
import { parseDirectory, withDirectory } from './directory-option.ts';
import { formatSize } from './size-text.ts';
import { parseAs, parseSingle } from './values.ts';
import { type Action, verb } from './verb.ts';
import { conclude, parseWait, withWait } from './wait-option.ts';

export const switchTo = verb({
  command: 'switch <volume> [storage]',
  summary: 'Make another copy the primary, without losing a write',
  flags: ['wait', 'no-wait'],
  completes: ['volume', 'storage'],
  completesOptions: { site: 'site' },
  describe: (yargs) =>
    withWait(
      withDirectory(
        yargs
          .usage(
            '$0 copy switch VOLUME (STORAGE | --site SITE)\n\nMake another copy the primary, which hosts read and write: planned, ' +
              'while they go on. No write is lost, and hosts see no error. The copy has to be duplex.',
          )
          .positional('volume', { describe: 'The volume', type: 'string', demandOption: true })
          .positional('storage', { describe: 'The storage system of the copy', type: 'string' })
          .option('site', {
            describe: 'Instead of a storage system: a site, for volumes of several segments',
            type: 'string',
            requiresArg: true,
          })
          .example('$0 copy switch db west-1', 'The copy on west-1 becomes primary')
          .example('$0 copy switch db --site west', 'Every segment has its primary in west'),
      ),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    const wait = parseWait(given);
    const volume = parseAs('bad-name', VolumeName, given.volume);
    const site = parseSingle('site', given.site, (text) => parseAs('bad-name', SiteName, text));
    const target = parseTarget(given.storage, site);
    const where = 'site' in target ? `in site ${target.site}` : `on ${target.storage}`;
    return async (output) => {
      const operation = await directory.switchCopy(volume, target);
      await conclude(operation, {
        directory,
        output,
        wait,
        told: (finished) => {
          output.result(finished, `the primary of volume ${volume} is ${where} now${tellTime(finished)}`);
        },
      });
    };
  },
});

export const failover = verb({
  command: 'failover [volume] [storage]',
  summary: 'Make another copy the primary when the primary is gone',
  flags: ['force', 'wait', 'no-wait'],
  completes: ['volume', 'storage'],
  completesOptions: { site: 'site' },
  describe: (yargs) =>
    withWait(
      withDirectory(
        yargs
          .usage(
            '$0 copy failover (VOLUME STORAGE | --site SITE)\n\nMake another copy the primary when the primary is gone. A copy that is ' +
              'duplex holds every write that was answered. The old primary follows when it comes back, and gives up what it alone ' +
              'has. With --site: every volume whose primary is on a storage system of that site which is offline, to its best copy.',
          )
          .positional('volume', { describe: 'The volume', type: 'string' })
          .positional('storage', { describe: 'The storage system of the copy', type: 'string' })
          .option('site', {
            describe: 'Instead of a volume: the site that is gone',
            type: 'string',
            requiresArg: true,
          })
          .option('force', {
            describe: 'Also to a copy that is not duplex: what it lacks is lost',
            type: 'boolean',
            default: false,
          })
          .example('$0 copy failover db west-1', 'Hosts go on there')
          .example('$0 copy failover db west-1 --force', 'When there is no other copy left')
          .example('$0 copy failover --site east', 'All that had its primary in east goes on elsewhere'),
      ),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    const wait = parseWait(given);
    const site = parseSingle('site', given.site, (text) => parseAs('bad-name', SiteName, text));
    if (site !== undefined) {
      refuseBesideSite(given.volume, wait);
      return async (output) => {
        const { failOverSite } = await import('./copy-failover-site.ts');
        await failOverSite({ directory, site, force: given.force, output });
      };
    }
    if (given.volume === undefined || given.storage === undefined) {
      throw new UsageError('bad-argument', 'say which: give a volume and a storage system, or --site');
    }
    const volume = parseAs('bad-name', VolumeName, given.volume);
    const storage = parseAs('bad-name', StorageName, given.storage);
    return async (output) => {
      const lost = given.force ? lossOf(await directory.volume(volume), storage) : '';
      const operation = await directory.failOver(volume, { storage, force: given.force });
      await conclude(operation, {
        directory,
        output,
        wait,
        told: (finished) => {
          output.result(finished, `the primary of volume ${volume} is on ${storage} now${lost}`);
        },
      });
    };
  },
});

/** @throws UsageError */
function refuseBesideSite(volume: string | undefined, wait: boolean): void {
  if (volume !== undefined) throw new UsageError('bad-argument', 'give a volume or --site, not both');
  if (!wait) throw new UsageError('bad-argument', '--site waits for every volume: give it without --no-wait');
}

/** What a forced failover to the copies there gives up, in words. */
function lossOf({ name, segments }: VolumeView, storage: StorageName): string {
  const behind = segments
    .flatMap(({ copies }) => copies)
    .filter((copy) => copy.storage === storage && copy.role === 'secondary' && copy.pair !== 'duplex');
  if (behind.length === 0) return '';
  const bytes = behind.reduce((sum, { outOfSyncBytes }) => sum + outOfSyncBytes, 0);
  if (behind.every(({ outOfSyncKnown }) => outOfSyncKnown))
    return `; ${formatSize(bytes)} that it lacked are lost`;
  return `; what it lacked is lost: how much, "volary events" says when the old primary of ${name} is back`;
}

/** @throws UsageError */
function parseTarget(storage: string | undefined, site: SiteName | undefined): SwitchCopy {
  if (storage !== undefined && site !== undefined) {
    throw new UsageError('bad-argument', 'give a storage system or --site, not both');
  }
  if (site !== undefined) return { site };
  if (storage !== undefined) return { storage: parseAs('bad-name', StorageName, storage) };
  throw new UsageError('bad-argument', 'say which copy: give its storage system, or --site');
}

/** How long hosts have waited, as far as the directory can tell. */
function tellTime({ result }: OperationRecord): string {
  const handOverMs = result?.handOverMs;
  return typeof handOverMs === 'number' ? ` (handed over in ${Math.round(handOverMs)} ms)` : '';
}
