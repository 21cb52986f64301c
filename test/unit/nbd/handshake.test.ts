/** The driver of the handshake: answers that take their time, and clients that do not listen. */

import { expect, test } from 'vitest';
import { NbdServer } from '../../../src/nbd/server.ts';
import { Option, OptionReply } from '../../../src/nbd-server-protocol/constants.ts';
import { silentLog } from '../../support/log.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';
import { infoData, optionRequest, readGreeting, readOptionReply, u32, Wire } from '../../support/wire.ts';

const volume = new MemoryVolume(Buffer.alloc(65536));
const disk = { name: 'disk', volume };

async function connected(server: NbdServer): Promise<Wire> {
  const address = (await server.listen({ host: '127.0.0.1', port: 0 })) as { host: string; port: number };
  const wire = await Wire.connect(address);
  await readGreeting(wire);
  wire.send(u32(3));
  return wire;
}

test('an export that is looked up elsewhere: the answer comes when it is known', async () => {
  const server = new NbdServer({
    exports: { list: () => [disk], find: async (name) => (name === 'disk' ? disk : undefined) },
    log: silentLog,
  });
  const wire = await connected(server);
  wire.send(optionRequest(Option.go, infoData('nobody')), optionRequest(Option.go, infoData('disk')));
  expect((await readOptionReply(wire)).type).toBe(OptionReply.errUnknown);
  expect((await readOptionReply(wire)).type).toBe(OptionReply.info);
  wire.destroy();
  await server.stop();
});

test('shutdown while an export is looked up: ERR_SHUTDOWN, then the end', async () => {
  let asked = false;
  const never = new Promise<undefined>(() => undefined);
  const find = () => {
    asked = true;
    return never;
  };
  const server = new NbdServer({ exports: { list: () => [], find }, log: silentLog });
  const wire = await connected(server);
  wire.send(optionRequest(Option.go, infoData('disk')));
  while (!asked) await new Promise((resolve) => setImmediate(resolve));
  const stopped = server.stop();
  expect((await readOptionReply(wire)).type).toBe(OptionReply.errShutdown);
  expect(await wire.readToEnd()).toHaveLength(0);
  wire.destroy();
  await stopped;
});

test('a client that asks for the list for ever and never listens does not make the server keep it all', async () => {
  const names = Array.from({ length: 1000 }, (_, index) => ({ name: `${'x'.repeat(1000)}${index}` }));
  const server = new NbdServer({ exports: { list: () => names, find: () => undefined }, log: silentLog });
  const wire = await connected(server);
  wire.pause();
  const before = process.memoryUsage();
  const lists = Buffer.concat(Array.from({ length: 2000 }, () => optionRequest(Option.list)));
  wire.send(lists);
  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setTimeout(resolve, 5));
  const after = process.memoryUsage();
  const grown = after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers;
  expect(grown).toBeLessThan(64 * 1024 * 1024); // of 2 GB
  wire.destroy();
  await server.stop();
});
