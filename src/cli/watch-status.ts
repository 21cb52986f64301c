/**
 * `volary status --watch`: on a terminal a screen that changes with the cluster; with `--json`, or into a file, the status
 * once more for every change. A directory that goes away is a change like any other, as is its return.
 */

import { pause } from '../base/pause.ts';
import type { StatusView } from '../control-protocol/directory-api.ts';
import type { DirectoryClient } from '../control-protocol/directory-client.ts';
import { isAway } from '../control-protocol/http-client.ts';
import type { ControlError } from '../model/errors.ts';
import { firstStopSignal } from '../runtime/stop-signal.ts';
import type { Output } from './output.ts';
import { openScreen } from './screen.ts';
import { formatStatus } from './status-text.ts';

const ASK_AGAIN_AFTER_MS = 1_000;

interface Seen {
  /** The last status there was. */
  readonly view: StatusView;
  /** Why there is none now. */
  readonly away: ControlError | undefined;
}

/** Until a signal ends it. @throws ControlError when there is no directory to begin with */
export async function watchStatus(directory: DirectoryClient, output: Output): Promise<void> {
  let seen: Seen = { view: await directory.status(), away: undefined };
  const stop = new AbortController();
  void firstStopSignal().then(() => stop.abort());
  const screen = process.stdout.isTTY && !output.json ? openScreen(output) : undefined;
  let shown = '';
  try {
    while (!stop.signal.aborted) {
      const appearance = appearanceOf(seen);
      if (appearance !== shown) {
        shown = appearance;
        if (screen !== undefined) screen.draw(`${format(seen)}\n\nCtrl-C ends this.`);
        else if (!output.result(documentOf(seen), `${format(seen)}\n`)) return;
      }
      await pause(ASK_AGAIN_AFTER_MS, stop.signal);
      seen = await lookAgain(directory, seen, stop.signal);
    }
  } finally {
    screen?.close();
  }
}

async function lookAgain(directory: DirectoryClient, before: Seen, signal: AbortSignal): Promise<Seen> {
  try {
    return { view: await directory.status(signal), away: undefined };
  } catch (error) {
    if (!isAway(error)) throw error;
    return { view: before.view, away: error };
  }
}

/** What a change is measured by: that somebody was heard of again is none. */
function appearanceOf({ view, away }: Seen): string {
  return JSON.stringify([away?.code, view], (key, value: unknown) => (key === 'lastSeenAt' ? null : value));
}

function documentOf({ view, away }: Seen): object {
  return away === undefined ? view : { error: { code: away.code, message: away.message } };
}

function format({ view, away }: Seen): string {
  const text = formatStatus(view);
  return away === undefined ? text : `${away.message}\nThis was its last word:\n\n${text}`;
}
