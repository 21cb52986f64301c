import { PassThrough } from 'node:stream';
import { finished } from 'node:stream/promises';
import { expect, test } from 'vitest';
import { forEachLine } from '../../../src/supervisor/lines.ts';

async function linesOf(...chunks: (string | Buffer)[]): Promise<string[]> {
  const stream = new PassThrough();
  const lines: string[] = [];
  forEachLine(stream, (line) => lines.push(line));
  for (const chunk of chunks) stream.write(chunk);
  stream.end();
  await finished(stream);
  return lines;
}

test('lines come whole, however they are cut, and a last one without its end too', async () => {
  const text = Buffer.from('one\ntwö\n\nthree');
  for (let cut = 0; cut <= text.length; cut++) {
    expect(await linesOf(text.subarray(0, cut), text.subarray(cut))).toEqual(['one', 'twö', '', 'three']);
  }
});

test('a line without an end is not collected for ever', async () => {
  const lines = await linesOf(...Array.from({ length: 40 }, () => 'x'.repeat(10_000)));
  expect(lines.length).toBeGreaterThan(1);
  expect(lines.join('')).toBe('x'.repeat(400_000));
});
