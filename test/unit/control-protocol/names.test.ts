import { basename, join, normalize } from 'node:path';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  AccessKey,
  Endpoint,
  Epoch,
  HttpUrl,
  OperationId,
  RealVolumeId,
  StorageName,
  VolumeName,
  VolumeSize,
} from '../../../src/control-protocol/names.ts';
import {
  formatRealVolumeExport,
  parseRealVolumeExport,
} from '../../../src/control-protocol/real-volume-export.ts';

/** Texts that are more often almost names than not. */
const almostNames = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.string({
    unit: fc.constantFrom('a', 'Z', '0', '.', '-', '_', '/', '\\', '\0', '\n', ' ', 'é', 'e\u0301', '語'),
  }),
  fc.string({ unit: 'grapheme', minLength: 1, maxLength: 100 }),
);

test('Q2: what passes for a name of a volume is one harmless component of a path', () => {
  fc.assert(
    fc.property(almostNames, (text) => {
      if (!VolumeName.safeParse(text).success) return;
      expect(basename(text)).toBe(text);
      expect(normalize(join('/srv/volumes', text))).toBe(`/srv/volumes/${text}`);
      expect(text).not.toMatch(/^[.-]|[\p{C}\s/\\:*?"<>|]/u);
      expect(Buffer.byteLength(text)).toBeLessThanOrEqual(255);
      expect(text.normalize('NFC')).toBe(text);
      expect(Buffer.from(text).toString()).toBe(text);
    }),
    { numRuns: 2_000 },
  );
});

test('Q2: a name of a storage system is a name of a volume, too, in ASCII', () => {
  fc.assert(
    fc.property(almostNames, (text) => {
      if (!StorageName.safeParse(text).success) return;
      expect(VolumeName.safeParse(text).success).toBe(true);
      expect(text).toMatch(/^[!-~]{1,63}$/);
    }),
    { numRuns: 2_000 },
  );
});

test.each(['db', '0', 'a.b-c_d', 'データ', 'größe', 'नमस्ते', 'x'.repeat(255), 'é'.repeat(127)])(
  '"%.20s" is a name of a volume',
  (text) => expect(VolumeName.parse(text)).toBe(text),
);

test.each([
  ['', 'nothing'],
  ['.', 'this folder'],
  ['..', 'the folder above'],
  ['../x', 'a path upwards'],
  ['a/b', 'a path'],
  ['-d', 'an option'],
  ['a\0b', 'a zero byte'],
  ['a\n', 'a line end'],
  ['a b', 'a space'],
  ['e\u0301', 'not in form NFC'],
  ['a\u202eb', 'turns the direction of writing'],
  ['\ud800', 'half a character'],
  ['x'.repeat(256), 'too long'],
  ['é'.repeat(128), 'too long in bytes'],
  ['a:b', 'a colon'],
])('%j is none: %s', (text) => expect(VolumeName.safeParse(text).success).toBe(false));

test.each([
  [0, false],
  [511, false],
  [512, true],
  [513, false],
  [1024.5, false],
  [2 ** 53 - 512, true],
  [2 ** 53, false],
  [Number.NaN, false],
])('a volume of %d bytes: %s', (sizeBytes, allowed) => {
  expect(VolumeSize.safeParse(sizeBytes).success).toBe(allowed);
});

test.each(['https://a', 'file:///etc/passwd', 'a:1', 'javascript:alert(1)'])('%s is no HTTP URL', (text) => {
  expect(HttpUrl.safeParse(text).success).toBe(false);
});

test('an endpoint has a host without blanks or slashes, and a port that can be connected to', () => {
  expect(Endpoint.safeParse({ host: '::1', port: 1 }).success).toBe(true);
  for (const wrong of [
    { host: '', port: 1 },
    { host: 'a/b', port: 1 },
    { host: 'a b', port: 1 },
    { host: 'a', port: 0 },
  ]) {
    expect(Endpoint.safeParse(wrong).success, JSON.stringify(wrong)).toBe(false);
  }
});

const hexadecimal = (length: number) =>
  fc.string({ unit: fc.constantFrom(...'0123456789abcdef'), minLength: length, maxLength: length });
const ids = hexadecimal(16).map((digits) => RealVolumeId.parse(`rv-${digits}`));
const keys = hexadecimal(32).map((digits) => AccessKey.parse(digits));
const manners = fc.constantFrom('ordinary', 'alone', 'passage');
const epochs = fc.integer({ min: 1, max: 1e15 - 1 }).map((epoch) => Epoch.parse(epoch));

test('an export name of a real volume comes back as what it was made of', () => {
  fc.assert(
    fc.property(ids, epochs, keys, manners, (realVolume, epoch, key, manner) => {
      const name = formatRealVolumeExport(realVolume, epoch, key, manner);
      expect(parseRealVolumeExport(name)).toEqual({ realVolume, access: { epoch, key, manner } });
      expect(parseRealVolumeExport(realVolume)).toEqual({ realVolume, access: undefined });
    }),
  );
});

test('an export name with one character changed, added or left out is another one, or none', () => {
  const edits = fc.tuple(fc.nat(), fc.constantFrom('', 'x', '0', '@', '.', '/', '\0', '\n', 'A'), fc.nat(1));
  fc.assert(
    fc.property(
      ids,
      epochs,
      keys,
      manners,
      edits,
      (realVolume, epoch, key, manner, [at, inserted, removed]) => {
        const name = formatRealVolumeExport(realVolume, epoch, key, manner);
        const place = at % (name.length + 1);
        const changed = name.slice(0, place) + inserted + name.slice(place + removed);
        const parsed = parseRealVolumeExport(changed);
        if (changed === name) expect(parsed).toEqual({ realVolume, access: { epoch, key, manner } });
        else expect(parsed).not.toEqual({ realVolume, access: { epoch, key, manner } });
        if (parsed?.access !== undefined) {
          const { access } = parsed;
          expect(formatRealVolumeExport(parsed.realVolume, access.epoch, access.key, access.manner)).toBe(
            changed,
          );
        }
      },
    ),
    { numRuns: 1_000 },
  );
});

test.each([
  '',
  'rv-',
  'rv-0123456789abcdef@',
  'rv-0123456789abcdef@1',
  'rv-0123456789abcdef@0.KEY',
  '../rv-0123456789abcdef',
])('"%s" is no export of a real volume', (name) => expect(parseRealVolumeExport(name)).toBeUndefined());

test('an operation has an id of its own form', () => {
  expect(OperationId.safeParse('op-0123456789abcdef').success).toBe(true);
  expect(OperationId.safeParse('op-../../x').success).toBe(false);
});
