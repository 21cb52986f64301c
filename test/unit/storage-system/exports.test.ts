/** Who gets in by which export name, and what they are told otherwise. */

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { AccessKey } from '../../../src/control-protocol/names.ts';
import { OptionReply, TransmissionFlag } from '../../../src/nbd-server-protocol/constants.ts';
import { epochOf, exportOf, idOf, MiB, wantedOf } from '../../support/storage-system.ts';
import { listOf, type StorageLab, storageLab } from './lab.ts';

const id = idOf(1);
const SHUTDOWN = 108;
const page = Buffer.alloc(4096, 7);

let lab: StorageLab;
beforeEach(async () => {
  lab = await storageLab();
  await lab.client.makeRealVolume(id, wantedOf(MiB, { epoch: epochOf(3) }));
});
afterEach(() => lab[Symbol.asyncDispose]());

const refusals: [what: string, name: string, reply: number, text: RegExp][] = [
  ['the default export', '', OptionReply.errUnknown, /real volumes: rv-/],
  ['a virtual volume', 'data', OptionReply.errUnknown, /exported by gateways/],
  ['a path', '../volumes/x', OptionReply.errUnknown, /real volumes: rv-/],
  ['a real volume of another system', idOf(2), OptionReply.errUnknown, /there is no real volume/],
  ['the wrong key', exportOf(id, 3, AccessKey.parse('f'.repeat(32))), OptionReply.errPolicy, /access key/],
  ['an older epoch', exportOf(id, 2), OptionReply.errShutdown, /epoch 2 .* is over/],
  ['an epoch that is yet to come', exportOf(id, 4), OptionReply.errPolicy, /has epoch 3/],
];

test.each(refusals)('%s is refused, with a helpful text', async (_what, name, reply, text) => {
  const refused = lab.open(name);
  await expect(refused).rejects.toThrow(text);
  await expect(refused).rejects.toThrow(`0x${reply.toString(16)}`);
});

test('the wrong key is told nothing of the epoch', async () => {
  const wrong = AccessKey.parse('f'.repeat(32));
  await expect(lab.open(exportOf(id, 2, wrong))).rejects.toThrow('access key');
  await expect(lab.open(exportOf(id, 9, wrong))).rejects.toThrow('access key');
});

test('LIST shows bare names, without keys, of what can be opened', async () => {
  await lab.client.makeRealVolume(idOf(2), wantedOf(MiB, { volume: null }));
  await lab.client.makeRealVolume(idOf(3), wantedOf(MiB));
  await lab.client.changeRealVolume(idOf(3), { access: 'prohibited' });
  expect(await listOf(lab.ready.uri)).toEqual([id, idOf(2)]);
});

test('with the key it is written, without it it is read: the same bytes, several connections each', async () => {
  const [use, other, look] = await Promise.all([
    lab.open(exportOf(id, 3)),
    lab.open(exportOf(id, 3)),
    lab.open(id),
  ]);
  expect(await use.write(0, page)).toBe(0);
  expect((await other.read(0, 4096)).data.equals(page)).toBe(true);
  expect((await look.read(0, 4096)).data.equals(page)).toBe(true);
  expect(look.transmissionFlags & TransmissionFlag.readOnly).not.toBe(0);
  expect(await look.write(0, page)).not.toBe(0);
  expect(await look.trim(0, 4096)).not.toBe(0);
  expect(await use.flush()).toBe(0);
  expect(await lab.client.realVolume(id)).toMatchObject({ connections: 3, state: 'in-use' });
});

describe('access', () => {
  test('prohibited: those inside are shut out, nobody gets in; allowed again: they do', async () => {
    const use = await lab.open(exportOf(id, 3));
    const look = await lab.open(id);
    const view = await lab.client.changeRealVolume(id, { access: 'prohibited' });
    expect(view).toMatchObject({ state: 'access-prohibited', connections: 0 });
    expect(await use.write(0, page)).toBe(SHUTDOWN);
    expect(await use.flush()).toBe(SHUTDOWN);
    expect((await look.read(0, 512)).error).toBe(SHUTDOWN);
    await expect(lab.open(exportOf(id, 3))).rejects.toThrow('prohibited');
    await expect(lab.open(id)).rejects.toThrow('prohibited');
    await lab.restart();
    await expect(lab.open(id)).rejects.toThrow('prohibited');
    expect(await lab.client.changeRealVolume(id, { access: 'allowed' })).toMatchObject({ state: 'in-use' });
    expect(await (await lab.open(exportOf(id, 3))).write(0, page)).toBe(0);
  });

  test('an epoch that is raised shuts out those who use it, and leaves those who look', async () => {
    const use = await lab.open(exportOf(id, 3));
    const look = await lab.open(id);
    expect(await lab.client.changeRealVolume(id, { epoch: epochOf(7) })).toMatchObject({ epoch: 7 });
    expect(await use.write(0, page)).toBe(SHUTDOWN);
    expect((await use.read(0, 512)).error).toBe(SHUTDOWN);
    expect((await look.read(0, 512)).error).toBe(0);
    expect(await (await lab.open(exportOf(id, 7))).write(0, page)).toBe(0);
    await expect(lab.open(exportOf(id, 3))).rejects.toThrow('is over');
    await lab.restart();
    await expect(lab.open(exportOf(id, 3))).rejects.toThrow('is over');
    expect(await (await lab.open(exportOf(id, 7))).write(0, page)).toBe(0);
  });

  test('who was shut out is told so for a while, and then cut off', async () => {
    const use = await lab.open(exportOf(id, 3));
    await lab.client.changeRealVolume(id, { epoch: epochOf(7) });
    expect(await use.write(0, page)).toBe(SHUTDOWN);
    await use.wire.readToEnd();
  });

  test('a system that stops flushes, and is not kept by those who were shut out', async () => {
    const old = await lab.open(exportOf(id, 3));
    await lab.client.changeRealVolume(id, { epoch: epochOf(4) });
    expect(await old.flush()).toBe(SHUTDOWN);
    expect(await (await lab.open(exportOf(id, 4))).write(0, page)).toBe(0);
    await lab.restart();
    expect((await (await lab.open(id)).read(0, 4096)).data.equals(page)).toBe(true);
  });
});
