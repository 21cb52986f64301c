/** The network that other tests cut: what a cut loses, and what it does not. */

import { type ChildProcess, spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Network, startNetwork } from '../support/network.ts';
import { eventually } from '../support/tools.ts';

const PORT = 5000;

/** Prints what it hears, and sends it back. `ask ADDRESS WORD` on its standard input makes it send something itself. */
const ECHO = `
  const socket = require('node:dgram').createSocket('udp4');
  socket.on('message', (bytes, from) => {
    console.log(String(bytes));
    if (from.port !== ${PORT}) socket.send(bytes, from.port, from.address);
  });
  socket.bind(${PORT}, () => console.log('ready'));
  require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
    const [address, word] = line.split(' ');
    socket.send(word, ${PORT}, address);
  });
`;

let network: Network;
const echoes: ChildProcess[] = [];
const heard = { a: [] as string[], b: [] as string[], here: [] as string[] };
const socket = createSocket('udp4').on('message', (bytes) => heard.here.push(String(bytes)));

beforeAll(async () => {
  network = await startNetwork(['a', 'b']);
  for (const name of ['a', 'b'] as const) {
    const [program = '', ...args] = network.host(name).command;
    const child = spawn(program, [...args, process.execPath, '--eval', ECHO], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    echoes.push(child);
    const lines = createInterface({ input: child.stdout });
    lines.on('line', (line) => heard[name].push(line));
    await once(lines, 'line');
  }
});

afterAll(async () => {
  socket.close();
  for (const child of echoes) child.kill('SIGKILL');
  await network?.end();
});

const everything = ['a-b b', 'b-a a', 'here-a a', 'here-a here', 'here-b b', 'here-b here'];
let rounds = 0;

/** Sends from here to both, and from a to b and back: `FROM-TO WHERE` says who has heard what, here the echo. */
async function expectLost(...lost: string[]): Promise<void> {
  const word = `${++rounds}-`;
  const { address: a } = network.host('a');
  const { address: b } = network.host('b');
  socket.send(`${word}here-a`, PORT, a);
  socket.send(`${word}here-b`, PORT, b);
  echoes[0]?.stdin?.write(`${b} ${word}a-b\n`);
  echoes[1]?.stdin?.write(`${a} ${word}b-a\n`);
  const now = (): string[] =>
    Object.entries(heard).flatMap(([where, words]) =>
      words.filter((one) => one.startsWith(word)).map((one) => `${one.slice(word.length)} ${where}`),
    );
  const expected = everything.filter((one) => !lost.includes(one));
  await eventually(`${expected}`, () => (expected.every((one) => now().includes(one)) ? true : undefined));
  await sleep(100); // for what should be lost
  expect(now().sort()).toEqual(expected);
}

test('1: nothing of it is in the network of the machine', () => {
  expect(readFileSync('/proc/net/dev', 'utf8')).toContain('bridge0');
  expect(readFileSync(`/proc/${process.ppid}/net/dev`, 'utf8')).not.toContain('bridge0');
});

test('3: one direction of a link, or of all links of a host, is lost; the others are not', async () => {
  await expectLost();
  await network.cut('a', 'b');
  await expectLost('a-b b');
  await network.mend();
  await network.cut('a');
  await expectLost('a-b b', 'here-a here');
  await network.mend();
  await network.cutOffFromAll('a');
  await expectLost('b-a a', 'here-a a', 'here-a here');
  await network.mend();
  await expectLost();
});
