import { expect, test } from 'vitest';
import { parseExportName } from '../../../src/cli/export-name.ts';

test.each(['a', 'disk.img', 'ディスク', 'with space/and slash', 'a'.repeat(4096), 'é'.repeat(2048)])(
  '%s is a name',
  (name) => {
    expect(parseExportName(name)).toBe(name);
  },
);

test.each([
  ['nothing', ''],
  ['a zero byte', 'a\0b'],
  ['4,097 bytes', 'a'.repeat(4097)],
  ['4,097 bytes in fewer characters', `${'é'.repeat(2048)}a`],
  ['half of a surrogate pair', 'a\ud800'],
  ['what a name that is not UTF-8 turns into', 'a\ufffd'],
])('%s is no name', (_, name) => {
  expect(() => parseExportName(name)).toThrow(expect.objectContaining({ code: 'bad-name' }));
});
