/** `volary operation`: what the directory is at work on. */

import type { OperationRecord } from '../control-protocol/catalog.ts';
import { OperationId } from '../control-protocol/names.ts';
import { parseDirectory, withDirectory } from './directory-option.ts';
import { finish } from './finish.ts';
import { parseAs } from './values.ts';
import { type Action, family, verb } from './verb.ts';

const show = verb({
  command: 'show <id>',
  summary: 'An operation, and how far it is',
  describe: (yargs) =>
    withDirectory(
      yargs
        .usage('$0 operation show ID\n\nAn operation, and how far it is.')
        .positional('id', { describe: 'As --no-wait has printed it', type: 'string', demandOption: true })
        .example('$0 operation show op-0123456789abcdef', 'Running, done, or failed and why'),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    const id = parseAs('bad-name', OperationId, given.id);
    return async (output) => {
      const operation = await directory.operation(id);
      output.result(operation, formatOperation(operation));
    };
  },
});

const wait = verb({
  command: 'wait <id>',
  summary: 'Wait until an operation is finished',
  describe: (yargs) =>
    withDirectory(
      yargs
        .usage('$0 operation wait ID\n\nWait until an operation is finished; fails when it has failed.')
        .positional('id', { describe: 'As --no-wait has printed it', type: 'string', demandOption: true })
        .example('$0 operation wait op-0123456789abcdef', 'Exit status 0: it is done'),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    const id = parseAs('bad-name', OperationId, given.id);
    return async (output) => {
      const operation = await finish(directory, id);
      output.result(operation, formatOperation(operation));
    };
  },
});

export function formatOperation({ id, kind, volume, state, step, error }: OperationRecord): string {
  const how = state === 'running' || state === 'undoing' ? `${state} (${step})` : state;
  const why = error === null ? '' : `: ${error.code}: ${error.message}`;
  return `${id}  ${kind} ${volume}: ${how}${why}`;
}

export const operation = family('operation', 'Operations of the directory', [show, wait]);
