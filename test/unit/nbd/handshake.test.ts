/** The driver of the handshake: answers that take their time, and clients that do not listen. */

import { describe, expect, test } from 'vitest';
import { ExportRefused, type ExportRefusedCode, type NbdExport, NbdServer } from '../../../src/nbd/server.ts';
import { Command, Option, OptionReply } from '../../../src/nbd-server-protocol/constants.ts';
import { silentLog } from '../../support/log.ts';
import { eventually } from '../../support/tools.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';
import {
  infoData,
  optionRequest,
  readGreeting,
  readOptionReply,
  requestMessage,
  u32,
  Wire,
} from '../../support/wire.ts';

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

describe('an export that is refused with a reason', () => {
  const HOW = {
    thrown: (error: Error) => {
      throw error;
    },
    rejected: (error: Error) => Promise.reject(error),
    'rejected later': async (error: Error) => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      throw error;
    },
  };
  function refusing(how: keyof typeof HOW): NbdServer {
    const find = (name: string) => {
      if (name === 'disk') return disk;
      return HOW[how](new ExportRefused(name as ExportRefusedCode, `${name}: not here`));
    };
    return new NbdServer({ exports: { list: () => [disk], find }, log: silentLog });
  }

  test.each(Object.keys(HOW) as (keyof typeof HOW)[])(
    '%s: INFO and GO say why, and stay in step',
    async (how) => {
      const server = refusing(how);
      const wire = await connected(server);
      const answers = { unknown: 'errUnknown', policy: 'errPolicy', shutdown: 'errShutdown' } as const;
      for (const option of [Option.info, Option.go]) {
        for (const [code, type] of Object.entries(answers)) {
          wire.send(optionRequest(option, infoData(code)));
          const reply = await readOptionReply(wire);
          expect([reply.type, reply.data.toString()]).toEqual([OptionReply[type], `${code}: not here`]);
        }
      }
      wire.send(optionRequest(Option.go, infoData('disk')));
      expect((await readOptionReply(wire)).type).toBe(OptionReply.info);
      expect((await readOptionReply(wire)).type).toBe(OptionReply.ack);
      wire.send(requestMessage('simple', { type: Command.read, offset: 0, length: 512 }));
      expect(await wire.read(16 + 512)).toHaveLength(528);
      wire.destroy();
      await server.stop();
    },
  );

  test.each(Object.keys(HOW) as (keyof typeof HOW)[])(
    '%s: EXPORT_NAME closes the connection',
    async (how) => {
      const server = refusing(how);
      const wire = await connected(server);
      wire.send(optionRequest(Option.exportName, Buffer.from('policy')));
      expect(await wire.readToEnd()).toHaveLength(0);
      wire.destroy();
      await server.stop();
    },
  );

  test('any other failure of the look-up closes the connection, as nobody knows what to say', async () => {
    const find = () => Promise.reject(new Error('no idea'));
    const server = new NbdServer({ exports: { list: () => [], find }, log: silentLog });
    const wire = await connected(server);
    wire.send(optionRequest(Option.go, infoData('disk')));
    expect(await wire.readToEnd()).toHaveLength(0);
    wire.destroy();
    await server.stop();
  });
});

test.each(['found', 'refused', 'failed'] as const)(
  'a client that leaves while its export is looked up, which is then %s, leaves nothing behind',
  async (outcome) => {
    const answers: (() => void)[] = [];
    let uses = 0;
    const users = { begun: () => void uses++, ended: () => void uses-- };
    const find = () =>
      new Promise<NbdExport>((resolve, reject) => {
        answers.push(() => {
          if (outcome === 'found') resolve({ ...disk, users });
          else reject(outcome === 'refused' ? new ExportRefused('policy', 'no') : new Error('no idea'));
        });
      });
    const server = new NbdServer({ exports: { list: () => [], find }, log: silentLog, drainMs: 10 });
    const address = (await server.listen({ host: '127.0.0.1', port: 0 })) as { host: string; port: number };
    for (const how of ['close', 'reset'] as const) {
      const wire = await Wire.connect(address);
      await readGreeting(wire);
      wire.send(u32(3), optionRequest(Option.go, infoData('disk')));
      await eventually('the look-up', () => answers.length > 0 || undefined);
      wire.destroy(how);
      await new Promise((resolve) => setTimeout(resolve, 20)); // the goodbye is there
      for (const answer of answers.splice(0)) answer();
      await new Promise((resolve) => setTimeout(resolve, 20));
      await eventually('all is over', () => (server.connectionsOf(volume) === 0 && uses === 0) || undefined);
    }
    await server.stop();
    expect(uses).toBe(0);
  },
);

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
