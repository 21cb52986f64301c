/** The table of "which error for which wrong request": protocol document, "Request types" and "Error values". */

import { describe, expect, test } from 'vitest';
import { checkRequest, mustDisconnect, type RequestRules } from '../../../src/nbd/request-check.ts';
import { Command, CommandFlag, Errno, TransmissionFlag } from '../../../src/nbd-server-protocol/constants.ts';
import type { Request } from '../../../src/nbd-server-protocol/request-decoder.ts';

const SIZE = 1 << 30;
const ALL = Object.values(TransmissionFlag).reduce((all, flag) => all | flag, 0) & ~TransmissionFlag.readOnly;

function rules(changes: Partial<RequestRules> = {}): RequestRules {
  return {
    headerStyle: 'structured',
    transmissionFlags: ALL,
    contextCount: 1,
    minimumBlock: 1,
    maximumPayload: 1 << 25,
    ...changes,
  };
}

function request(command: number, changes: Partial<Request> = {}): Request {
  const length = changes.length ?? (command === Command.flush || command === Command.resize ? 0 : 4096);
  return {
    command,
    flags: 0,
    offset: 0,
    length,
    payloadLength: command === Command.write ? length : 0,
    cookieHigh: 0,
    cookieLow: 0,
    offsetHigh: 0,
    offsetLow: 0,
    ...changes,
  };
}

type Name = Exclude<keyof typeof Command, 'disconnect'>;
const commands = (Object.keys(Command) as (keyof typeof Command)[]).filter(
  (name): name is Name => name !== 'disconnect',
);
const errnoOf = (r: Request, given = rules()) => checkRequest(r, given, SIZE)?.errno ?? 0;

describe('plain requests', () => {
  test.each(commands)('%s passes', (name) => expect(errnoOf(request(Command[name]))).toBe(0));

  const beyond: Record<Name, number> = {
    read: Errno.EINVAL,
    write: Errno.ENOSPC,
    flush: Errno.EINVAL, // offset and length are reserved
    trim: Errno.EINVAL,
    cache: Errno.EINVAL,
    writeZeroes: Errno.ENOSPC,
    blockStatus: Errno.EINVAL,
    resize: 0, // the offset is the new size
  };
  test.each(commands)('%s behind the end', (name) => {
    expect(errnoOf(request(Command[name], { offset: SIZE - 4095, length: 4096 }))).toBe(beyond[name]);
    expect(errnoOf(request(Command[name], { offset: 2 ** 64 - 1, length: 4096 }))).toBe(beyond[name]);
  });

  const readOnly: Record<Name, number> = {
    read: 0,
    write: Errno.EPERM,
    flush: 0,
    trim: Errno.EPERM,
    cache: 0,
    writeZeroes: Errno.EPERM,
    blockStatus: 0,
    resize: Errno.EPERM,
  };
  test.each(commands)('%s on a read-only export', (name) => {
    const given = rules({ transmissionFlags: ALL | TransmissionFlag.readOnly });
    expect(errnoOf(request(Command[name]), given)).toBe(readOnly[name]);
  });

  const notOffered: Record<Name, number> = {
    read: 0,
    write: 0,
    flush: Errno.EINVAL,
    trim: Errno.EINVAL,
    cache: Errno.EINVAL,
    writeZeroes: Errno.EINVAL,
    blockStatus: 0, // offered by contexts, not by a flag
    resize: Errno.EINVAL,
  };
  test.each(commands)('%s when nothing was offered', (name) => {
    const given = rules({ transmissionFlags: TransmissionFlag.hasFlags });
    expect(errnoOf(request(Command[name]), given)).toBe(notOffered[name]);
  });

  test('unknown commands', () => {
    for (const command of [9, 100, 65535]) expect(errnoOf(request(command))).toBe(Errno.EINVAL);
  });

  test('block status without a context', () => {
    expect(errnoOf(request(Command.blockStatus), rules({ contextCount: 0 }))).toBe(Errno.EINVAL);
  });

  test.each(commands.filter((name) => name !== 'flush' && name !== 'resize'))(
    '%s off the minimum block',
    (name) => {
      const given = rules({ minimumBlock: 512 });
      expect(errnoOf(request(Command[name], { offset: 256 }), given)).toBe(Errno.EINVAL);
      expect(errnoOf(request(Command[name], { length: 1000 }), given)).toBe(Errno.EINVAL);
      expect(errnoOf(request(Command[name], { offset: 512 }), given)).toBe(0);
    },
  );
});

describe('flags', () => {
  const allowed: Record<Name, readonly (keyof typeof CommandFlag)[]> = {
    read: ['fua', 'df'],
    write: ['fua'],
    flush: ['fua'],
    trim: ['fua'],
    cache: ['fua'],
    writeZeroes: ['fua', 'noHole', 'fastZero'],
    blockStatus: ['fua', 'reqOne'],
    resize: ['fua'],
  };
  const flags = Object.keys(CommandFlag) as (keyof typeof CommandFlag)[];
  test.each(commands.flatMap((name) => flags.map((flag) => [name, flag] as const)))(
    '%s with %s',
    (name, flag) => {
      const errno = errnoOf(request(Command[name], { flags: CommandFlag[flag] }));
      expect(errno).toBe(allowed[name].includes(flag) ? 0 : Errno.EINVAL);
    },
  );

  test('a flag that no document knows', () => {
    for (const name of commands)
      expect(errnoOf(request(Command[name], { flags: 1 << 15 }))).toBe(Errno.EINVAL);
  });

  test.each([
    ['write', 'fua', 'sendFua'],
    ['read', 'df', 'sendDf'],
    ['writeZeroes', 'fastZero', 'sendFastZero'],
  ] as const)('%s with %s, which was not offered', (name, flag, offer) => {
    const given = rules({ transmissionFlags: ALL & ~TransmissionFlag[offer] });
    expect(errnoOf(request(Command[name], { flags: CommandFlag[flag] }), given)).toBe(Errno.EINVAL);
  });
});

describe('sizes', () => {
  const large = 1 << 26;
  test('read of more than the maximum payload', () => {
    const wide = request(Command.read, { length: large });
    expect(errnoOf(wide)).toBe(Errno.EOVERFLOW);
    expect(errnoOf(wide, rules({ headerStyle: 'simple' }))).toBe(Errno.EINVAL);
  });

  test('write of more than the maximum payload: consumed with compact headers, the end with extended ones', () => {
    const wide = request(Command.write, { length: large, flags: 0 });
    expect(errnoOf(wide)).toBe(Errno.EINVAL);
    expect(mustDisconnect(wide, rules())).toBe(false);
    expect(mustDisconnect(wide, rules({ headerStyle: 'extended' }))).toBe(true);
  });

  test('trim, zeroes and status of nearly 4 GiB have no such bound', () => {
    const length = 2 ** 32 - 4096;
    for (const name of ['trim', 'writeZeroes', 'blockStatus', 'cache'] as const) {
      expect(checkRequest(request(Command[name], { length }), rules(), 2 ** 42)).toBeUndefined();
    }
  });

  test('a status of 0 bytes cannot be told', () => {
    expect(errnoOf(request(Command.blockStatus, { length: 0 }))).toBe(Errno.EINVAL);
  });
});

describe('extended headers', () => {
  const given = rules({ headerStyle: 'extended' });
  const payload = CommandFlag.payloadLen;
  test('a write must say that it has a payload', () => {
    expect(errnoOf(request(Command.write, { payloadLength: 0 }), given)).toBe(Errno.EINVAL);
    expect(errnoOf(request(Command.write, { flags: payload }), given)).toBe(0);
  });

  test('nobody else may, but for block status where that was offered', () => {
    for (const name of commands) {
      if (name === 'write' || name === 'blockStatus') continue;
      expect(errnoOf(request(Command[name], { flags: payload, payloadLength: 8 }), given)).toBe(Errno.EINVAL);
    }
    const status = request(Command.blockStatus, { flags: payload, length: 12, payloadLength: 12 });
    expect(errnoOf(status, given)).toBe(0);
    const withheld = { ...given, transmissionFlags: ALL & ~TransmissionFlag.blockStatusPayload };
    expect(errnoOf(status, withheld)).toBe(Errno.EINVAL);
  });

  test('a payload of 0 bytes', () => {
    expect(errnoOf(request(Command.write, { flags: payload, length: 0, payloadLength: 0 }), given)).toBe(
      Errno.EINVAL,
    );
  });
});
