/**
 * A machine of its own for the tests: QEMU without hardware acceleration, booted from support/kernel.ts's image.
 * It reaches this machine's loopback as `serverAddress`.
 *
 * The console (first serial port) is kept for failure messages: every error says how it ended. Commands go over
 * the second serial port to the guest's `init`, which runs each in a shell of its own; the test meets the
 * guest simply by awaiting a command, while another one (started, not yet awaited) goes on.
 *
 * Nothing waits for ever: booting and each command have a limit, a kernel panic ends QEMU, and QEMU's end
 * fails every command that is waiting.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { createServer, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { type GuestImage, guestImage } from './kernel.ts';
import { requireTool, temporaryFolder } from './tools.ts';

/** This machine's 127.0.0.1, as seen from the guest. */
export const serverAddress = '10.0.2.2';

export interface CommandResult {
  /** Exit status of the guest's shell. */
  readonly status: number;
  /** stdout and stderr in the order written. */
  readonly output: string;
}

export interface Guest {
  /** Runs a shell script in the guest. Rejects when the guest dies, or after `timeoutMs` (default 120,000). */
  run(script: string, timeoutMs?: number): Promise<CommandResult>;
  /** As `run`, for a script that must succeed (it runs under `set -e`); resolves with its output, trimmed. */
  ok(script: string, timeoutMs?: number): Promise<string>;
  /** Pulls the plug, and waits for the end. */
  stop(): Promise<void>;
}

const bootTimeoutMs = 240_000;
const commandTimeoutMs = 120_000;
/** How long a guest that did not answer may take to say what it is stuck in. */
const lastWordsMs = 3_000;

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Boots a guest and waits until it takes commands. */
export async function bootGuest(): Promise<Guest> {
  const qemu = requireTool('qemu-system-x86_64', 'qemu-system-x86');
  const image = await guestImage();
  const folder = await temporaryFolder();
  const socketPath = folder.file('commands');
  const { connection } = await listen(socketPath);
  const machine = new Machine(qemu, image, socketPath);
  const stop = async () => {
    await machine.stop();
    await folder.remove();
  };
  try {
    const booted = machine.answer('init', 'boot', bootTimeoutMs);
    machine.attach(await Promise.race([connection, booted.then(() => connection)]));
    const init = await booted;
    if (init.status !== 0) throw machine.failure(`the guest could not set itself up: ${init.output}`);
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    run: (script, timeoutMs) => machine.run(script, timeoutMs),
    ok: async (script, timeoutMs) => {
      const { status, output } = await machine.run(`set -e\n${script}`, timeoutMs);
      if (status !== 0) throw machine.failure(`exit ${status} in the guest: ${script}\n${output}`);
      return output.trim();
    },
    stop,
  };
}

interface Waiting {
  readonly resolve: (result: CommandResult) => void;
  readonly reject: (error: Error) => void;
}

/** A QEMU process, and the commands that its guest has yet to answer. */
class Machine {
  readonly #child: ChildProcess;
  readonly #end: Promise<void>;
  readonly #waiting = new Map<string, Waiting>();
  #console = '';
  #line: Socket | undefined;
  #ended: Error | undefined;
  #commands = 0;

  constructor(qemu: string, image: GuestImage, socketPath: string) {
    const child = spawn(qemu, qemuArguments(image, socketPath), { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    running.add(child);
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.#console += text;
      });
    }
    this.#end = new Promise((resolve) => {
      const finish = (what: string) => {
        this.#finish(what);
        resolve();
      };
      child.on('error', (error) => finish(`QEMU did not start: ${error.message}`));
      child.on('close', (code, signal) => finish(`QEMU ended (code ${code}, signal ${signal})`));
    });
  }

  /** Commands go out, and answers come in, over this. */
  attach(line: Socket): void {
    this.#line = line;
    createInterface({ input: line }).on('line', (text) => this.#deliver(text));
  }

  run(script: string, timeoutMs = commandTimeoutMs): Promise<CommandResult> {
    const id = String(++this.#commands);
    const result = this.answer(id, script, timeoutMs);
    this.#send(id, script);
    return result;
  }

  /** The answer to the command `id`, or the reason why there will be none. */
  answer(id: string, what: string, timeoutMs: number): Promise<CommandResult> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id);
        // The kernel prints on the console which tasks are blocked, and where.
        this.#send('last-words', 'echo w >/proc/sysrq-trigger');
        const fail = () => reject(this.failure(`no answer from the guest within ${timeoutMs} ms: ${what}`));
        setTimeout(fail, lastWordsMs);
      }, timeoutMs);
      this.#waiting.set(id, {
        resolve: (result) => {
          clearTimeout(timer);
          resolve(result);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      });
    });
  }

  /** An error that says how the console ended. */
  failure(what: string): Error {
    const tail = this.#console.split('\n').slice(-60).join('\n');
    return new Error(`${what}\nThe guest's console ended with:\n${tail}`);
  }

  async stop(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#end;
  }

  #send(id: string, script: string): void {
    this.#line?.write(`${id} ${Buffer.from(script).toString('base64')}\n`);
  }

  /** `@@ ID STATUS OUTPUT-IN-BASE64` */
  #deliver(text: string): void {
    const match = /^@@ (\S+) (\d+) ?(\S*)\r?$/.exec(text);
    if (match === null) return;
    const [, id = '', status, output = ''] = match;
    this.#waiting
      .get(id)
      ?.resolve({ status: Number(status), output: Buffer.from(output, 'base64').toString() });
    this.#waiting.delete(id);
  }

  #finish(what: string): void {
    running.delete(this.#child);
    this.#ended ??= this.failure(this.#console.includes('Kernel panic') ? 'the guest panicked' : what);
    for (const { reject } of this.#waiting.values()) reject(this.#ended);
    this.#waiting.clear();
  }
}

function qemuArguments(image: GuestImage, socketPath: string): string[] {
  return [
    ...['-machine', 'q35', '-accel', 'tcg,thread=multi', '-cpu', 'max', '-m', '1024', '-smp', '2'],
    ...['-nodefaults', '-display', 'none', '-no-reboot', '-serial', 'stdio'],
    ...['-chardev', `socket,id=commands,path=${socketPath}`, '-serial', 'chardev:commands'],
    ...['-netdev', 'user,id=n0', '-device', 'virtio-net-pci,netdev=n0,romfile='],
    ...['-kernel', image.kernel, '-initrd', image.initramfs],
    ...['-append', 'console=ttyS0 rdinit=/init panic=-1 quiet net.ifnames=0 mitigations=off'],
  ];
}

/** Listens on a unix socket; the promise inside is its first and only connection. */
function listen(path: string): Promise<{ connection: Promise<Socket> }> {
  const { promise: connection, resolve: connected } = Promise.withResolvers<Socket>();
  const server = createServer((socket) => {
    server.close();
    // QEMU's end is noticed as a process; a reset here says nothing more.
    socket.on('error', () => socket.destroy());
    connected(socket);
  });
  return new Promise((resolve, reject) => {
    server.on('error', reject);
    server.listen(path, () => resolve({ connection }));
  });
}
