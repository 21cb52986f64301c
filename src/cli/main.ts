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
import { refuseFlagValues } from './values.ts';
import { type Action, type Verb, verbPath } from './verb.ts';

/** In the order of the help. Loaded when meant: a role that is started needs nothing of the rest, and starts sooner. */
const VERBS: Readonly<Record<string, () => Promise<Verb>>> = {
  up: async () => (await import('./up.ts')).up,
  serve: async () => (await import('./serve.ts')).serve,
  run: async () => (await import('./run.ts')).run,
  volume: async () => (await import('./volume.ts')).volume,
  copy: async () => (await import('./copy.ts')).copy,
  group: async () => (await import('./group.ts')).group,
  storage: async () => (await import('./storage.ts')).storage,
  interface: async () => (await import('./interface.ts')).interfaces,
  login: async () => (await import('./login.ts')).login,
  location: async () => (await import('./location.ts')).location,
  attach: async () => (await import('./attach.ts')).attach,
  detach: async () => (await import('./detach.ts')).detach,
  status: async () => (await import('./status.ts')).status,
  events: async () => (await import('./events.ts')).events,
  operation: async () => (await import('./operation.ts')).operation,
};

const WIDTH_MAX = 110;
/** Then come `volary` and the words so far; the script of `volary completion` asks so. */
const COMPLETION_REQUEST = '--get-yargs-completions';

async function main(words: readonly string[]): Promise<number> {
  const options = words.includes('--') ? words.slice(0, words.indexOf('--')) : words;
  const output = new Output(options.includes('--json') || options.includes('--json=true'));
  const word = options.find((candidate) => !candidate.startsWith('-')) ?? '';
  const one = Object.hasOwn(VERBS, word) ? VERBS[word] : undefined;
  const verbs = await Promise.all((one === undefined ? Object.values(VERBS) : [one]).map((load) => load()));
  const names =
    words[0] === COMPLETION_REQUEST
      ? await (await import('./complete.ts')).completeNames(verbs, words.slice(2))
      : [];
  if (names.length > 0) {
    output.result(names, names.join('\n'));
    return ExitStatus.ok;
  }
  const meant = verbPath(verbs, options);
  let action: Action | undefined;
  try {
    refuseFlagValues(options, ['json', ...meant.flatMap(({ flags }) => flags)]);
    const parser = yargs([...words])
      .scriptName('volary')
      .locale('en')
      .usage('$0 COMMAND\n\nVirtual block devices over NBD.')
      .option('json', { describe: 'Results as JSON on stdout', type: 'boolean', default: false })
      .epilogue('"volary COMMAND --help" says more about each, with examples.')
      .version(packageJson.version)
      .demandCommand(1, 'say what to do')
      .strictCommands()
      .strict()
      .parserConfiguration({
        'greedy-arrays': false,
        'boolean-negation': false,
        'camel-case-expansion': false,
        'dot-notation': false,
        'parse-numbers': false,
        'parse-positional-numbers': false,
      })
      .exitProcess(false)
      .fail(false)
      .wrap(Math.min(WIDTH_MAX, process.stdout.columns ?? WIDTH_MAX));
    for (const verb of verbs) {
      verb.register(parser, (chosen) => {
        action = chosen;
      });
    }
    parser.completion('completion', 'Print a script that completes commands for your shell (bash or zsh)');
    await parser.parseAsync();
  } catch (error) {
    return tellWrongUsage(error, ['volary', ...meant.map(({ name }) => name), '--help'].join(' '), output);
  }
  try {
    await action?.(output);
    return ExitStatus.ok;
  } catch (error) {
    if (!(error instanceof VolaryError)) throw error;
    output.failure(error);
    return ExitStatus.failure;
  }
}

/** yargs rejects with an error of its own, or with what a parser of ours has thrown. */
function tellWrongUsage(error: unknown, help: string, output: Output): number {
  if (!(error instanceof Error)) throw error;
  const code = error instanceof VolaryError ? error.code : 'bad-argument';
  output.failure({ code, message: `${error.message} (see ${help})` });
  return ExitStatus.wrongUsage;
}

process.exitCode = await main(hideBin(process.argv));
