import { expect, test } from 'vitest';
import { printable } from '../../../src/cli/output.ts';
import { fitting } from '../../../src/cli/screen.ts';
import { formatSize } from '../../../src/cli/size-text.ts';
import { formatTable } from '../../../src/cli/table.ts';
import { parseCount, parseOffset } from '../../../src/cli/values.ts';
import { parseSegment } from '../../../src/cli/volume-create.ts';

test.each([
  [0, '0 B'],
  [512, '512 B'],
  [1024, '1 KiB'],
  [1_500_000, '1.43 MiB'],
  [2 ** 30 - 1, '1024 MiB'],
  [2 ** 30, '1 GiB'],
  [1.5 * 2 ** 30, '1.5 GiB'],
  [2 ** 50, '1048576 GiB'],
])('%d bytes are %s', (sizeBytes, text) => expect(formatSize(sizeBytes)).toBe(text));

test('what is shown has no control characters and does not turn its direction', () => {
  expect(printable('a\n\x1b[31m\r\t\x07\u0085\u202eb')).toBe(
    'a\n\\u{1b}[31m\\u{d}\\u{9}\\u{7}\\u{85}\\u{202e}b',
  );
  expect(printable('データ größe – ok')).toBe('データ größe – ok');
});

test('a screen holds as many lines as it has rows', () => {
  expect(fitting(['a', 'b', 'c'], 3)).toEqual(['a', 'b', 'c']);
  expect(fitting(['a', 'b', 'c'], 2)).toEqual(['a', '… 2 more lines']);
  expect(fitting(['a', 'b'], 1)).toEqual(['… 2 more lines']);
});

test('a table: wide characters, numbers to the right, one line a row, no blanks behind', () => {
  const rows = [
    { name: 'データ', count: 7 },
    { name: 'a\nb', count: 1234 },
  ];
  const text = formatTable(
    rows,
    [
      { head: 'COUNT', align: 'right', cell: ({ count }) => count },
      { head: 'NAME', cell: ({ name }) => name },
    ],
    'none',
  );
  expect(text).toBe('COUNT  NAME\n    7  データ\n 1234  a b');
  expect(formatTable([], [], 'none')).toBe('none');
});

test('a segment: a storage system, and a size behind a colon', () => {
  expect(parseSegment('east-1')).toEqual({ storage: 'east-1' });
  expect(parseSegment('east-1:4GiB')).toEqual({ storage: 'east-1', sizeBytes: 4 * 2 ** 30 });
  for (const [text, code] of [
    ['', 'bad-name'],
    [':4GiB', 'bad-name'],
    ['east-1:', 'bad-size'],
    ['east-1:x', 'bad-size'],
    ['east-1:1:2', 'bad-size'],
    ['a/b', 'bad-name'],
  ] as const) {
    expect(() => parseSegment(text), text).toThrow(expect.objectContaining({ code }));
  }
});

test('offsets may be 0, counts are whole and bounded', () => {
  expect([parseOffset('0'), parseOffset('000'), parseOffset('4KiB')]).toEqual([0, 0, 4096]);
  expect([parseCount('limit', '0', 9), parseCount('limit', '9', 9)]).toEqual([0, 9]);
  for (const text of ['10', '-1', '1.5', '', 'x', '1e1']) {
    expect(() => parseCount('limit', text, 9), text).toThrow(
      expect.objectContaining({ code: 'bad-argument' }),
    );
  }
});
