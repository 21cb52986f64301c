/**
 * A terminal's whole screen, drawn again and again: on the terminal's second screen, so that what was there before comes
 * back; without flicker, as nothing is erased that is not written over at once. Whatever ends the process, the
 * terminal gets its cursor and its first screen back.
 */

import { type Output, printable } from './output.ts';

const SECOND_SCREEN = '\x1b[?1049h\x1b[?25l\x1b[?7l'; // no cursor, and lines that are too long are cut
const FIRST_SCREEN = '\x1b[?7h\x1b[?25h\x1b[?1049l';
const HOME = '\x1b[H';
const ERASE_REST_OF_LINE = '\x1b[K';
const ERASE_BELOW = '\x1b[J';
/** Terminals that know it show everything between the two at once. */
const BEGIN_UPDATE = '\x1b[?2026h';
const END_UPDATE = '\x1b[?2026l';

export interface Screen {
  draw(text: string): void;
  close(): void;
}

export function openScreen(output: Output): Screen {
  let text = '';
  const draw = (): void => {
    const lines = fitting(printable(text).split('\n'), process.stdout.rows);
    const drawn = lines.map((line) => `${line}${ERASE_REST_OF_LINE}`).join('\r\n');
    output.draw(`${BEGIN_UPDATE}${HOME}${drawn}${ERASE_BELOW}${END_UPDATE}`);
  };
  const restore = (): void => output.draw(FIRST_SCREEN);
  output.draw(SECOND_SCREEN);
  process.on('exit', restore);
  process.stdout.on('resize', draw);
  return {
    draw: (next) => {
      text = next;
      draw();
    },
    close: () => {
      process.off('exit', restore);
      process.stdout.off('resize', draw);
      restore();
    },
  };
}

/** As many of the lines as there are rows; the last one tells how many are missing. */
export function fitting(lines: readonly string[], rows: number): string[] {
  if (lines.length <= rows) return [...lines];
  const shown = Math.max(rows - 1, 0);
  return [...lines.slice(0, shown), `… ${lines.length - shown} more lines`];
}
