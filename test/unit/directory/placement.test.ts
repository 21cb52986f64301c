import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { StorageName } from '../../../src/control-protocol/names.ts';
import { place, placeAsAsked, placeGrowth, type Room, type Share } from '../../../src/directory/placement.ts';
import { ControlError } from '../../../src/model/errors.ts';

const name = (text: string): StorageName => StorageName.parse(text);
const room = (storage: string, freeBytes: number): Room => ({ storage: name(storage), freeBytes });
const KiB = 1024;

const rooms = fc
  .array(fc.integer({ min: -5_000, max: 200_000 }), { minLength: 1, maxLength: 6 })
  .map((free) => free.map((freeBytes, at) => room(`s${at}`, freeBytes)));
const sectors = (max: number) => fc.integer({ min: 1, max }).map((count) => count * 512);

function aligned(bytes: number): number {
  return Math.max(0, Math.floor(bytes / 4096) * 4096);
}

function expectFits(shares: readonly Share[], sizeBytes: number, given: readonly Room[], at = 0): void {
  expect(shares.reduce((sum, { lengthBytes }) => sum + lengthBytes, 0)).toBe(sizeBytes);
  let border = at;
  for (const { storage, lengthBytes } of shares) {
    expect(border % 4096).toBe(0);
    expect(lengthBytes).toBeGreaterThan(0);
    const free = given.find((each) => each.storage === storage)?.freeBytes ?? 0;
    const taken = shares.filter((share) => share.storage === storage);
    expect(taken.reduce((sum, share) => sum + share.lengthBytes, 0)).toBeLessThanOrEqual(free);
    border += lengthBytes;
  }
}

function codeOf(act: () => unknown): string | undefined {
  try {
    act();
    return undefined;
  } catch (error) {
    if (error instanceof ControlError) return error.code;
    throw error;
  }
}

describe('V7: placement', () => {
  test('is on one storage system when one has room, the one with the most; else on as few as can be', () => {
    fc.assert(
      fc.property(rooms, sectors(1_500), (given, sizeBytes) => {
        const most = Math.max(...given.map(({ freeBytes }) => freeBytes));
        const code = codeOf(() => place(sizeBytes, given));
        if (sizeBytes <= given.reduce((sum, { freeBytes }) => sum + aligned(freeBytes), 0))
          expect(code).toBe(undefined);
        if (code !== undefined) {
          expect(code).toBe('no-space');
          return;
        }
        const shares = place(sizeBytes, given);
        expectFits(shares, sizeBytes, given);
        expect(shares.length === 1).toBe(sizeBytes <= most);
        expect(shares[0]?.storage).toBe(given.find(({ freeBytes }) => freeBytes === most)?.storage);
        const largest = given.map(({ freeBytes }) => freeBytes).sort((a, b) => b - a);
        // Of all but the last, whole pages can be used.
        const fewer = largest
          .slice(0, shares.length - 1)
          .reduce((sum, free) => sum + Math.max(0, aligned(free)), 0);
        expect(fewer).toBeLessThan(sizeBytes);
      }),
    );
  });

  test('does not depend on the order in which storage systems are known', () => {
    fc.assert(
      fc.property(rooms, sectors(1_500), (given, sizeBytes) => {
        const reversed = [...given].reverse();
        const code = codeOf(() => place(sizeBytes, given));
        expect(codeOf(() => place(sizeBytes, reversed))).toBe(code);
        if (code === undefined) expect(place(sizeBytes, reversed)).toEqual(place(sizeBytes, given));
      }),
    );
  });

  test('of nobody online is unavailable', () => {
    expect(codeOf(() => place(512, []))).toBe('unavailable');
  });

  test('growth takes the last segment when there is room, else further ones behind an aligned border', () => {
    fc.assert(
      fc.property(rooms, sectors(500), sectors(1_000), (given, sizeBytes, moreBytes) => {
        const last = given[0] as Room;
        const code = codeOf(() => placeGrowth(sizeBytes, moreBytes, last.storage, given));
        if (code !== undefined) {
          expect(code).toBe('no-space');
          expect(moreBytes).toBeGreaterThan(last.freeBytes);
          return;
        }
        const { lastBytes, further } = placeGrowth(sizeBytes, moreBytes, last.storage, given);
        const lastShare = lastBytes === 0 ? [] : [{ storage: last.storage, lengthBytes: lastBytes }];
        expect(further.length === 0).toBe(moreBytes <= last.freeBytes);
        const taken = new Map<string, number>();
        for (const { storage, lengthBytes } of [...lastShare, ...further]) {
          taken.set(storage, (taken.get(storage) ?? 0) + lengthBytes);
        }
        for (const [storage, bytes] of taken) {
          expect(bytes).toBeLessThanOrEqual(given.find((each) => each.storage === storage)?.freeBytes ?? 0);
        }
        if (further.length > 0) expectFits(further, moreBytes - lastBytes, given, sizeBytes + lastBytes);
        expect([...taken.values()].reduce((sum, bytes) => sum + bytes, 0)).toBe(moreBytes);
      }),
    );
  });

  test('growth behind an odd end needs its storage system, which may be offline', () => {
    const given = [room('b', 100 * KiB)];
    expect(codeOf(() => placeGrowth(4096 + 512, 8192, name('a'), given))).toBe('no-space');
    expect(placeGrowth(4096, 8192, name('a'), given)).toEqual({
      lastBytes: 0,
      further: [{ storage: 'b', lengthBytes: 8192 }],
    });
  });
});

describe('placement as asked for', () => {
  const given = [room('a', 100 * KiB), room('b', 50 * KiB)];
  const [a, b] = [name('a'), name('b')];
  const ask = (sizeBytes: number, asked: Parameters<typeof placeAsAsked>[1]) =>
    placeAsAsked(sizeBytes, asked, given).map(({ storage, lengthBytes }) => `${storage}:${lengthBytes}`);

  test('keeps the order, and shares what is left evenly', () => {
    expect(ask(64 * KiB, [{ storage: b }, { storage: a }])).toEqual(['b:32768', 'a:32768']);
    expect(ask(12 * KiB + 512, [{ storage: b }, { storage: a }])).toEqual(['b:4096', 'a:8704']);
    expect(ask(20 * KiB, [{ storage: a, sizeBytes: 8 * KiB }, { storage: b }, { storage: a }])).toEqual([
      'a:8192',
      'b:4096',
      'a:8192',
    ]);
    expect(ask(20 * KiB, [{ storage: b }, { storage: a, sizeBytes: 12 * KiB }])).toEqual([
      'b:8192',
      'a:12288',
    ]);
    expect(ask(512, [{ storage: b, sizeBytes: 512 }])).toEqual(['b:512']);
  });

  test.each([
    ['sizes that are too much', 8 * KiB, [{ storage: a, sizeBytes: 12 * KiB }], 'bad-request'],
    ['sizes that are too little', 8 * KiB, [{ storage: a, sizeBytes: 4 * KiB }], 'bad-request'],
    ['nothing left', 8 * KiB, [{ storage: a, sizeBytes: 8 * KiB }, { storage: b }], 'bad-request'],
    ['less than nothing left', 4 * KiB, [{ storage: a, sizeBytes: 8 * KiB }, { storage: b }], 'bad-request'],
    ['too little for two', 4 * KiB, [{ storage: a }, { storage: b }], 'bad-request'],
    ['an odd border', 8 * KiB, [{ storage: a, sizeBytes: 512 }, { storage: b }], 'bad-request'],
    ['an odd rest in front', 8 * KiB, [{ storage: b }, { storage: a, sizeBytes: 512 }], 'bad-request'],
    ['more than there is room', 200 * KiB, [{ storage: a }, { storage: b }], 'no-space'],
    ['twice the same, too much together', 120 * KiB, [{ storage: a }, { storage: a }], 'no-space'],
    ['one that is offline', 8 * KiB, [{ storage: name('c') }], 'unavailable'],
  ])('refuses %s', (_, sizeBytes, asked, code) => {
    expect(codeOf(() => placeAsAsked(sizeBytes, asked, given))).toBe(code);
  });
});
