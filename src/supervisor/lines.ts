/** Lines of a stream, none longer than a limit: what a process writes without an end is cut into lines. */

import type { Readable } from 'node:stream';

const LINE_LENGTH_MAX = 64 * 1024;

export function forEachLine(stream: Readable, take: (line: string) => void): void {
  let rest = '';
  stream.setEncoding('utf8');
  stream.on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) take(line);
    if (rest.length < LINE_LENGTH_MAX) return;
    take(rest);
    rest = '';
  });
  stream.on('end', () => {
    if (rest !== '') take(rest);
  });
}
