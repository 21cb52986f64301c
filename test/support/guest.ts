/**
 * A machine of its own for the tests: QEMU without hardware acceleration, booted from support/kernel.ts's image.
 * It reaches this machine's loopback as `serverAddress`, and nothing else.
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
import { guestImage } from './kernel.ts';
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
  /** All that the kernel has printed on its console. */
  console(): string;
  /** Pulls the plug, and waits for the end. */
  stop(): Promise<void>;
}

interface Waiting {
  readonly resolve: (result: CommandResult) => void;
  readonly reject: (error: Error) => void;
}

const bootTimeoutMs = 240_000;
const commandTimeoutMs = 120_000;

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
  const connected = accept(socketPath);
  const child = spawn(qemu, qemuArguments(image.kernel, image.initramfs, socketPath), {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  running.add(child);
  let console = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      console += text;
    });
  }
  const waiting = new Map<string, Waiting>();
  const withConsole = (what: string) =>
    new Error(`${what}\nThe guest's console ended with:\n${tail(console)}`);
  let ended: Error | undefined;
  const end = new Promise<void>((resolve) => {
    const finish = (what: string) => {
      running.delete(child);
      ended ??= withConsole(console.includes('Kernel panic') ? 'the guest panicked' : what);
      for (const { reject } of waiting.values()) reject(ended);
      waiting.clear();
      resolve();
    };
    child.on('error', (error) => finish(`QEMU did not start: ${error.message}`));
    child.on('close', (code, signal) => finish(`QEMU ended (code ${code}, signal ${signal})`));
  });

  /** The answer to `id`, or the reason why there will be none. */
  const answer = (id: string, what: string, timeoutMs: number): Promise<CommandResult> => {
    if (ended !== undefined) return Promise.reject(ended);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        waiting.delete(id);
        reject(withConsole(`no answer from the guest within ${timeoutMs} ms: ${what}`));
      }, timeoutMs);
      const settle = <T>(act: (value: T) => void) => {
        return (value: T) => {
          clearTimeout(timer);
          waiting.delete(id);
          act(value);
        };
      };
      waiting.set(id, { resolve: settle(resolve), reject: settle(reject) });
    });
  };

  const stop = async () => {
    child.kill('SIGKILL');
    await end;
    await folder.remove();
  };

  let line: Socket;
  try {
    const booted = answer('init', 'boot', bootTimeoutMs);
    // While QEMU may still fail to start, `booted` is what rejects; nobody connects then.
    line = await Promise.race([connected, booted.then(() => connected)]);
    createInterface({ input: line }).on('line', (text) => deliver(text, waiting));
    const init = await booted;
    if (init.status !== 0) throw withConsole(`the guest could not set itself up: ${init.output}`);
  } catch (error) {
    await stop();
    throw error;
  }

  let commands = 0;
  const runCommand = (script: string, timeoutMs = commandTimeoutMs): Promise<CommandResult> => {
    const id = String(++commands);
    const result = answer(id, script, timeoutMs);
    line.write(`${id} ${Buffer.from(script).toString('base64')}\n`);
    return result;
  };
  return {
    run: runCommand,
    ok: async (script, timeoutMs) => {
      const { status, output } = await runCommand(`set -e\n${script}`, timeoutMs);
      if (status !== 0) throw withConsole(`exit ${status} in the guest: ${script}\n${output}`);
      return output.trim();
    },
    console: () => console,
    stop,
  };
}

function qemuArguments(kernel: string, initramfs: string, socketPath: string): string[] {
  return [
    ...['-machine', 'q35', '-accel', 'tcg,thread=multi', '-cpu', 'max', '-m', '1024', '-smp', '2'],
    ...['-nodefaults', '-display', 'none', '-no-reboot', '-serial', 'stdio'],
    ...['-chardev', `socket,id=commands,path=${socketPath}`, '-serial', 'chardev:commands'],
    ...['-netdev', 'user,id=n0', '-device', 'virtio-net-pci,netdev=n0'],
    ...['-kernel', kernel, '-initrd', initramfs],
    ...['-append', 'console=ttyS0 rdinit=/init panic=-1 quiet net.ifnames=0 mitigations=off'],
  ];
}

/** The first connection to a unix socket; rejects when the socket cannot be made. */
function accept(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => {
      server.close();
      // QEMU's end is noticed as a process; a reset here says nothing more.
      socket.on('error', () => socket.destroy());
      resolve(socket);
    });
    server.on('error', reject);
    server.listen(path);
  });
}

/** `@@ ID STATUS OUTPUT-IN-BASE64` */
function deliver(text: string, waiting: ReadonlyMap<string, Waiting>): void {
  const match = /^@@ (\S+) (\d+) ?(\S*)\r?$/.exec(text);
  if (match === null) return;
  const [, id = '', status, output = ''] = match;
  waiting.get(id)?.resolve({ status: Number(status), output: Buffer.from(output, 'base64').toString() });
}

function tail(text: string): string {
  return text.split('\n').slice(-40).join('\n');
}
