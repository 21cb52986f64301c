/** What is made of /sys and /proc, from trees like those of a kernel; test/host/attach.test.ts does it on a real one. */

import { mkdirSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { parseExportUri } from '../../../src/model/export-uri.ts';
import { attachArguments, connectedDevice } from '../../../src/runtime/nbd-attach.ts';
import { type NbdDevice, nbdDevices, type Places } from '../../../src/runtime/nbd-devices.ts';
import { type TemporaryFolder, temporaryFolder } from '../../support/tools.ts';

let folder: TemporaryFolder;
let places: Places;

beforeEach(async () => {
  folder = await temporaryFolder();
  places = { blockDevices: folder.file('sys'), processes: folder.file('proc') };
  mkdirSync(places.blockDevices);
  mkdirSync(places.processes);
});
afterEach(() => folder.remove());

function device(name: string, files: Record<string, string>): void {
  mkdirSync(`${places.blockDevices}/${name}`);
  for (const [file, text] of Object.entries(files))
    writeFileSync(`${places.blockDevices}/${name}/${file}`, text);
}

function process(pid: string, ...words: string[]): void {
  mkdirSync(`${places.processes}/${pid}`);
  writeFileSync(`${places.processes}/${pid}/cmdline`, words.map((word) => `${word}\0`).join(''));
}

test('devices by number, free and connected, with the export that the kernel or nbd-client tells', async () => {
  device('sda', { size: '100\n' });
  device('nbd10', { size: '0\n' });
  device('nbd2', { size: '2048\n', pid: '7\n' });
  device('nbd0', { size: '16\n', pid: '9\n', backend: 'db\n' });
  device('nbd1', { size: '0\n', pid: '8\n' });
  process('7', '/usr/sbin/nbd-client', 'gw', '10809', '/dev/nbd2', '-N', 'データ', '-C', '4');
  process('8', 'nbd-client', '-unix', '/run/s', '/dev/nbd1', '--name', 'logs');
  process('11', 'less', '/dev/nbd10', '-N', 'nobody');
  process('12', '');
  mkdirSync(`${places.processes}/self`);
  mkdirSync(`${places.processes}/13`); // it has just ended
  expect(await nbdDevices(places)).toEqual([
    { path: '/dev/nbd0', sizeBytes: 8192, connected: true, exportName: 'db' },
    { path: '/dev/nbd1', sizeBytes: 0, connected: true, exportName: 'logs' },
    { path: '/dev/nbd2', sizeBytes: 2 ** 20, connected: true, exportName: 'データ' },
    { path: '/dev/nbd10', sizeBytes: 0, connected: false, exportName: undefined },
  ]);
});

test('an nbd-client without a name has the default export', async () => {
  device('nbd0', { size: '16\n', pid: '7\n' });
  process('7', 'nbd-client', 'gw', '/dev/nbd0');
  expect((await nbdDevices(places))[0]?.exportName).toBe('');
});

const connected = (path: string, exportName: string): NbdDevice => {
  return { path, sizeBytes: 512, connected: true, exportName };
};

test('which device is meant: by its path, by its volume, or not at all', () => {
  const free = { path: '/dev/nbd3', sizeBytes: 0, connected: false, exportName: undefined };
  const devices = [
    connected('/dev/nbd0', 'db'),
    connected('/dev/nbd1', 'a'),
    connected('/dev/nbd2', 'a'),
    free,
  ];
  expect(connectedDevice(devices, 'db').path).toBe('/dev/nbd0');
  expect(connectedDevice(devices, '/dev/nbd2').path).toBe('/dev/nbd2');
  const code = (what: string) => {
    try {
      return connectedDevice(devices, what).path;
    } catch (error) {
      return (error as { code: string }).code;
    }
  };
  expect(['a', 'b', '/dev/nbd3', '/dev/nbd9'].map(code)).toEqual(['conflict', ...Array(3).fill('not-found')]);
});

test('the command line of nbd-client: TCP and unix sockets', () => {
  const line = (uri: string) => attachArguments('/dev/nbd0', parseExportUri(uri), 4).join(' ');
  expect(line('nbd://[::1]:7/db')).toBe('::1 7 /dev/nbd0 -N db -C 4 -persist -nonetlink');
  expect(line('nbd+unix:///db?socket=/run/s')).toBe('-unix /run/s /dev/nbd0 -N db -C 4 -persist -nonetlink');
});
