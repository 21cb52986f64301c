/** Connections that have their handshake at one server, and their transmission at another (here: in one process). */

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ExportRefused, type NbdExport, NbdServer } from '../../../src/nbd/server.ts';
import { Command, Option, OptionReply } from '../../../src/nbd-server-protocol/constants.ts';
import { silentLog } from '../../support/log.ts';
import { Session } from '../../support/nbd-session.ts';
import { eventually } from '../../support/tools.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';
import {
  type Address,
  infoData,
  optionRequest,
  readChunk,
  readGreeting,
  readOptionReply,
  requestMessage,
  u32,
  Wire,
} from '../../support/wire.ts';
import { pattern } from './lab.ts';

const SIZE = 1024 * 1024;

describe('a connection that is handed over', () => {
  let volume: MemoryVolume;
  let near: NbdServer;
  let far: NbdServer;
  let address: Address;
  let refuse: boolean;

  beforeEach(async () => {
    refuse = false;
    volume = new MemoryVolume(pattern(SIZE));
    const disk: NbdExport = { name: 'disk', volume };
    const find = async (): Promise<NbdExport> => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      if (refuse) throw new ExportRefused('shutdown', 'taken away');
      return disk;
    };
    far = new NbdServer({ exports: { list: () => [], find }, log: silentLog });
    near = new NbdServer({
      exports: { list: () => [disk], find: () => disk },
      log: silentLog,
      handOver: (agreed) => void far.adopt(agreed),
    });
    address = (await near.listen({ host: '127.0.0.1', port: 0 })) as Address;
  });

  afterEach(async () => {
    await near.stop();
    await far.stop();
  });

  test.each(['simple', 'structured', 'extended'] as const)('goes on as agreed, %s headers', async (style) => {
    const session = await Session.open(address, { style });
    const answer = await session.read(4096, SIZE - 4096);
    expect(answer.data.equals(pattern(SIZE).subarray(4096))).toBe(true);
    expect((await session.write(0, Buffer.alloc(300_000, 7))).error).toBe(0);
    expect((await session.read(0, 300_000)).data.equals(Buffer.alloc(300_000, 7))).toBe(true);
    expect(far.connectionsOf(volume)).toBe(1);
    session.wire.destroy();
    await eventually('its end', () => (far.connectionsOf(volume) === 0 ? true : undefined));
  });

  test.each([1, 20, 200])('with %i requests right behind the last option', async (count) => {
    const wire = await Wire.connect(address);
    await readGreeting(wire);
    const writes = Array.from({ length: count }, (_, index) =>
      requestMessage('simple', {
        type: Command.write,
        cookie: BigInt(index),
        offset: index * 4096,
        payload: Buffer.alloc(4096, index + 1),
      }),
    );
    wire.send(u32(3), optionRequest(Option.go, infoData('disk')), ...writes);
    while ((await readOptionReply(wire)).type !== OptionReply.ack);
    for (let index = 0; index < count; index++) {
      const { cookie, error } = await readChunk(wire, () => 0);
      expect([Number(cookie), error]).toEqual([index, 0]);
    }
    const bytes = Buffer.alloc(count * 4096);
    volume.readNow(0, bytes, 0, bytes.length);
    for (let index = 0; index < count; index++) expect(bytes[index * 4096 + 4095]).toBe((index + 1) & 0xff);
    wire.destroy();
  });

  test('to a server that cannot have its export is closed', async () => {
    refuse = true;
    const session = await Session.open(address);
    await expect(session.read(0, 512)).rejects.toThrow(/closed/);
  });

  test('from a server that stops', async () => {
    const session = await Session.open(address);
    await near.stop();
    expect((await session.read(0, 512)).error).toBe(0);
    session.wire.destroy();
  });
});
