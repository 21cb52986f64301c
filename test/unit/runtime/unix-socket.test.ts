import { existsSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { makeRoomForSocket } from '../../../src/runtime/unix-socket.ts';
import { runOk, type TemporaryFolder, temporaryFolder } from '../../support/tools.ts';

let folder: TemporaryFolder;
beforeEach(async () => {
  folder = await temporaryFolder();
});
afterEach(() => folder.remove());

function listenOn(path: string): Promise<Server> {
  const server = createServer();
  return new Promise((resolve, reject) => server.once('error', reject).listen(path, () => resolve(server)));
}

test('a path where nothing is needs nothing', async () => {
  await makeRoomForSocket(folder.file('v.sock'));
  expect(existsSync(folder.file('v.sock'))).toBe(false);
});

test('what a killed server left behind is taken away', async () => {
  const path = folder.file('v.sock');
  const script = `require('net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`;
  await expect(runOk(process.execPath, ['-e', script, path])).rejects.toThrow('SIGKILL');
  expect(existsSync(path)).toBe(true);
  await makeRoomForSocket(path);
  expect(existsSync(path)).toBe(false);
});

test('the socket of a server that lives stays, and is refused', async () => {
  const path = folder.file('v.sock');
  const server = await listenOn(path);
  try {
    await expect(makeRoomForSocket(path)).rejects.toMatchObject({ code: 'address-in-use' });
    expect(existsSync(path)).toBe(true);
  } finally {
    server.close();
  }
});

test('a file that is no socket is never taken away', async () => {
  const path = folder.file('precious.img');
  writeFileSync(path, 'data');
  await expect(makeRoomForSocket(path)).rejects.toMatchObject({ code: 'address-unavailable' });
  expect(existsSync(path)).toBe(true);
});
