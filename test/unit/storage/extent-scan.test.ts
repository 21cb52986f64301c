import { describe, expect, test } from 'vitest';
import { EIO, ENXIO, SEEK_DATA, SEEK_HOLE } from '../../../src/base/syscalls.ts';
import { ExtentScan } from '../../../src/storage/extent-scan.ts';

/** Runs the scan with these outcomes of its seeks. */
function scanned(range: [offset: number, length: number, extentsMax: number], outcomes: number[]) {
  const scan = new ExtentScan(...range);
  for (const outcome of outcomes) {
    expect(scan.done).toBe(false);
    scan.take(outcome);
  }
  expect(scan.done).toBe(true);
  return scan;
}
const data = (length: number) => ({ length, hole: false, zero: false });
const hole = (length: number) => ({ length, hole: true, zero: true });

describe('ExtentScan', () => {
  test('asks for data and hole in turn, from where the last answer ended', () => {
    const scan = new ExtentScan(0, 100, 10);
    expect([scan.whence, scan.position]).toEqual([SEEK_DATA, 0]);
    scan.take(10);
    expect([scan.whence, scan.position]).toEqual([SEEK_HOLE, 10]);
    scan.take(40);
    expect([scan.whence, scan.position]).toEqual([SEEK_DATA, 40]);
    scan.take(-ENXIO);
    expect(scan.done).toBe(true);
    expect(scan.extents).toEqual([hole(10), data(30), hole(60)]);
  });

  test('cuts at the end of the range, and knows the data beyond it', () => {
    const scan = scanned([50, 100, 10], [50, 5000]);
    expect(scan.extents).toEqual([data(100)]);
    expect(scan.data).toEqual([50, 5000]);
    expect(scanned([50, 100, 10], [9999]).extents).toEqual([hole(100)]);
  });

  test('stops at the greatest number of extents', () => {
    expect(scanned([0, 100, 1], [10]).extents).toEqual([hole(10)]);
    expect(scanned([0, 100, 2], [10, 20]).extents).toEqual([hole(10), data(10)]);
  });

  test('what cannot be told is data', () => {
    expect(scanned([0, 100, 9], [-EIO]).extents).toEqual([data(100)]);
    expect(scanned([0, 100, 9], [10, -EIO]).extents).toEqual([hole(10), data(90)]);
  });

  test('a file that changes between two seeks never makes it stand still, nor neighbours alike', () => {
    expect(scanned([0, 100, 9], [10, 10]).extents).toEqual([hole(10), data(90)]); // punched: no data after all
    expect(scanned([0, 100, 9], [0, 30, 30, 60, -ENXIO]).extents).toEqual([data(60), hole(40)]); // just written
  });
});
