/**
 * The command line. Here it is decided which verb was meant, how failures are told and which status the process
 * ends with; a verb has a file of its own.
 *
 * A wrong command line ends with status 2, everything else that goes wrong with status 1: both are one line on
 * stderr. What is no VolaryError is our own mistake, and ends the process with its stack.
 */

import yargs from 'yargs';
import { hideBin } from 'yargs/helpers';
import packageJson from '../../package.json' with { type: 'json' };
import { VolaryError } from '../model/errors.ts';
import { ExitStatus, Output } from './output.ts';
import { describeRun, run } from './run.ts';
import { describeServe, parseServe, serve } from './serve.ts';
import { describeUp, parseUp, up } from './up.ts';
import { refuseFlagValues } from './values.ts';

const WIDTH_MAX = 110;
const VERBS = ['serve', 'run', 'up'];

async function main(words: readonly string[]): Promise<number> {
  const options = words.includes('--') ? words.slice(0, words.indexOf('--')) : words;
  const output = new Output(options.includes('--json') || options.includes('--json=true'));
  let verb: (() => Promise<void>) | undefined;
  try {
    refuseFlagValues(options, ['json', 'read-only', 'no-restart', 'supervised']);
    await yargs([...words])
      .scriptName('volary')
      .locale('en')
      .usage('$0 COMMAND\n\nVirtual block devices over NBD.')
      .command('serve [path..]', 'Serve raw files over NBD', describeServe, (given) => {
        const options = parseServe(given);
        verb = () => serve(options, output);
      })
      .command('run', 'Run one role of a cluster', (inner) =>
        describeRun(inner, (options) => {
          verb = () => run(options, output);
        }),
      )
      .command('up', 'Run a whole cluster on this machine', describeUp, (given) => {
        const options = parseUp(given);
        verb = () => up(options, output);
      })
      .completion('completion', 'Print a script that completes commands for your shell (bash or zsh)')
      .option('json', { describe: 'Results as JSON on stdout', type: 'boolean', default: false })
      .version(packageJson.version)
      .demandCommand(1, 'say what to do')
      .strictCommands()
      .strict()
      .parserConfiguration({
        'greedy-arrays': false,
        'boolean-negation': false,
        'camel-case-expansion': false,
      })
      .exitProcess(false)
      .fail(false)
      .wrap(Math.min(WIDTH_MAX, process.stdout.columns ?? WIDTH_MAX))
      .parseAsync();
  } catch (error) {
    return tellWrongUsage(error, words[0], output);
  }
  try {
    await verb?.();
    return ExitStatus.ok;
  } catch (error) {
    if (!(error instanceof VolaryError)) throw error;
    output.failure(error);
    return ExitStatus.failure;
  }
}

/** yargs rejects with an error of its own, or with what a parser of ours has thrown. */
function tellWrongUsage(error: unknown, verb: string | undefined, output: Output): number {
  if (!(error instanceof Error)) throw error;
  const code = error instanceof VolaryError ? error.code : 'bad-argument';
  const help = VERBS.some((known) => known === verb) ? `volary ${verb} --help` : 'volary --help';
  output.failure({ code, message: `${error.message} (see ${help})` });
  return ExitStatus.wrongUsage;
}

process.exitCode = await main(hideBin(process.argv));
