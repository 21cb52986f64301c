import { expect, test } from 'vitest';
import { readBootId } from '../../../src/storage/boot-id.ts';

test('the boot id is the machine’s', () => {
  expect(readBootId()).toMatch(/^[0-9a-f]{32}$/);
  expect(readBootId()).toBe(readBootId());
});
