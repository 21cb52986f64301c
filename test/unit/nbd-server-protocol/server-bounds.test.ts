/** The server's handshake under shutdown, and what it takes from a client that asks for too much. */

import { describe, expect, test } from 'vitest';
import { Limit, Option } from '../../../src/nbd-server-protocol/constants.ts';
import { ServerHandshake } from '../../../src/nbd-server-protocol/server-handshake.ts';
import { DISK, driveServer, EXPORTS, FIXED_NEWSTYLE, infoData, option, parseReplies } from './lab.ts';

describe('N5: shutdown', () => {
  const asking = (...wire: Buffer[]) => {
    const machine = new ServerHandshake();
    machine.feed(Buffer.concat([FIXED_NEWSTYLE, ...wire]));
    expect(['list', 'find']).toContain(machine.next().kind);
    machine.refuse('shutdown');
    const step = machine.next();
    return step.kind === 'send' ? parseReplies(step.bytes).map(({ type }) => type) : step;
  };

  test('the option that is being answered is refused', () => {
    expect(asking(option(Option.list))).toEqual(['errShutdown']);
    expect(asking(option(Option.go, infoData('disk')))).toEqual(['errShutdown']);
    expect(asking(option(Option.exportName))).toMatchObject({ kind: 'close', code: 'refused' });
  });

  test('a list that is being sent ends with the refusal', () => {
    const machine = new ServerHandshake();
    machine.feed(Buffer.concat([FIXED_NEWSTYLE, option(Option.list)]));
    machine.next();
    const endless = (function* () {
      for (;;) yield DISK;
    })();
    machine.provideList(endless);
    expect(machine.next().kind).toBe('send');
    machine.refuse('shutdown');
    const step = machine.next();
    expect(step.kind === 'send' && parseReplies(step.bytes).map(({ type }) => type)).toEqual(['errShutdown']);
    expect(endless.next().done).toBe(true);
  });
});

describe('bounds', () => {
  test('a long list is made as it is sent, in pieces of some 32 KiB', () => {
    const machine = new ServerHandshake();
    machine.feed(Buffer.concat([FIXED_NEWSTYLE, option(Option.list)]));
    machine.next();
    let made = 0;
    const entries = (function* () {
      for (made = 0; made < 10_000; made++) yield { name: `export ${made}` };
    })();
    machine.provideList(entries);
    let replies = 0;
    for (let step = machine.next(); step.kind === 'send'; step = machine.next()) {
      expect(step.bytes.length).toBeLessThan(40_000);
      replies += parseReplies(step.bytes).length;
      expect(made).toBeLessThanOrEqual(replies);
    }
    expect(replies).toBe(10_001);
  });

  test('what is sent ahead of an answer is kept up to the bound, then the client is cut off', () => {
    const machine = new ServerHandshake();
    machine.feed(Buffer.concat([FIXED_NEWSTYLE, option(Option.list)]));
    expect(machine.next().kind).toBe('list');
    machine.feed(Buffer.alloc(Limit.handshakeBytes));
    expect(machine.next().kind).toBe('list');
    expect(machine.bufferedBytes).toBe(Limit.handshakeBytes);
    machine.feed(Buffer.alloc(1));
    expect(machine.next()).toMatchObject({ kind: 'close', code: 'limit' });
    expect(machine.bufferedBytes).toBe(0);
  });

  test('a client that haggles for ever is cut off', () => {
    const some = Buffer.concat(Array.from({ length: 1024 }, () => option(99)));
    const chunks = [FIXED_NEWSTYLE, ...Array.from({ length: Limit.options / 1024 }, () => some)];
    const machine = new ServerHandshake();
    expect(driveServer(machine, chunks).last.kind).toBe('need-bytes');
    expect(driveServer(machine, [option(99)]).last).toMatchObject({ kind: 'close', code: 'limit' });
  });

  test('answers that were not asked for are a mistake of the driver', () => {
    const machine = new ServerHandshake();
    expect(() => machine.provideList(EXPORTS)).toThrow(/without having been asked/);
    expect(() => machine.provideExport(DISK)).toThrow(/without having been asked/);
    const ready = new ServerHandshake();
    driveServer(ready, [FIXED_NEWSTYLE, option(Option.exportName)]);
    expect(() => ready.feed(Buffer.alloc(1))).toThrow(/fed after/);
  });
});
