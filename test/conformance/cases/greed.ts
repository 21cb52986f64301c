/** Clients that ask for much, take little or send nothing: memory stays bounded and others are served. */
import { Buffer } from 'node:buffer';
import { setTimeout as sleep } from 'node:timers/promises';
import { BASE_ALLOCATION, Command, Option } from '../../../src/nbd-server-protocol/constants.ts';
import { optionRequest, readGreeting, requestMessage } from '../../support/wire.ts';
import { allStyles, type Case, errorName, memoryWord, requestInStep } from '../lab.ts';
import { KiB, MiB, pattern } from '../servers.ts';

const BOUNDED = 'N5: bounded memory, others unharmed';

/** A client that asks for far more than it reads: it waits, the server does not hoard, others are served. */
const neverReads = allStyles.map(
  (style): Case => ({
    name: `${style}: a client that does not read its answers`,
    section: BOUNDED,
    permits: ['others served, memory bounded, then all right'],
    observe: async (lab) => {
      const session = await lab.session(style);
      const other = await lab.session('simple');
      const before = await lab.target.residentBytes();
      session.wire.pause();
      const count = 60;
      session.send(...Array.from({ length: count }, () => ({ type: Command.read, length: 8 * MiB })));
      for (let round = 0; round < 20; round += 1) {
        await sleep(10);
        const seen = await requestInStep(other, 'served');
        if (seen !== 'served') return `others ${seen}`;
      }
      const grown = (await lab.target.residentBytes()) - before;
      session.wire.resume();
      for (let answered = 0; answered < count; answered += 1) {
        const { error, data } = await session.next();
        if (error !== 0 || !data.subarray(0, 512).equals(pattern(0, 512))) return errorName(error);
      }
      return `others served, ${memoryWord(grown, 256 * MiB)}, then all right`;
    },
  }),
);

/** A client that sends without end and reads nothing: the server must stop taking its requests. */
const floods: Case = {
  name: 'structured: a client that only sends block status requests, and leaves',
  section: BOUNDED,
  permits: ['others served, memory bounded'],
  observe: async (lab) => {
    const session = await lab.session('structured', { contexts: [BASE_ALLOCATION] });
    const other = await lab.session('simple');
    const before = await lab.target.residentBytes();
    session.wire.pause();
    const request = requestMessage('structured', { type: Command.blockStatus, length: 3 * MiB });
    session.wire.send(Buffer.concat(Array.from({ length: 200_000 }, () => request)));
    for (let round = 0; round < 20; round += 1) {
      await sleep(20);
      const seen = await requestInStep(other, 'served');
      if (seen !== 'served') return `others ${seen}`;
    }
    const grown = (await lab.target.residentBytes()) - before;
    session.wire.destroy('reset');
    await sleep(300);
    const seen = await requestInStep(other, 'served');
    return seen === 'served'
      ? `others served, ${memoryWord(grown, 256 * MiB)}`
      : `others ${seen} when it leaves`;
  },
};

const floodsOptions: Case = {
  name: 'a client that only sends options, and does not read',
  section: BOUNDED,
  permits: ['others served, memory bounded'],
  observe: async (lab) => {
    const other = await lab.session('simple');
    const before = await lab.target.residentBytes();
    const { wire } = await lab.handshake();
    wire.pause();
    const list = optionRequest(Option.list);
    wire.send(Buffer.concat(Array.from({ length: 200_000 }, () => list)));
    for (let round = 0; round < 20; round += 1) {
      await sleep(10);
      const seen = await requestInStep(other, 'served');
      if (seen !== 'served') return `others ${seen}`;
    }
    return `others served, ${memoryWord((await lab.target.residentBytes()) - before, 128 * MiB)}`;
  },
};

const halfWritten: Case = {
  name: 'structured: 20 clients in the midst of a write of 32 MiB',
  section: BOUNDED,
  permits: ['others served, memory bounded'],
  observe: async (lab) => {
    const other = await lab.session('simple');
    const before = await lab.target.residentBytes();
    const offset = lab.scratch(33 * MiB);
    for (let count = 0; count < 20; count += 1) {
      const session = await lab.session('structured');
      const request = { type: Command.write, offset, length: 32 * MiB, payload: Buffer.alloc(64 * KiB) };
      await session.wire.sendAll(session.prepare(request));
    }
    const seen = await requestInStep(other, 'served');
    const grown = (await lab.target.residentBytes()) - before;
    return `others ${seen}, ${memoryWord(grown, 128 * MiB)}`;
  },
};

const silent: Case = {
  name: '20 clients that connect and say nothing',
  section: 'N5: others unharmed',
  permits: ['served'],
  observe: async (lab) => {
    for (let count = 0; count < 20; count += 1) await readGreeting(await lab.wire());
    return await requestInStep(await lab.session('simple'), 'served');
  },
};

export const greedCases: readonly Case[] = [...neverReads, floods, floodsOptions, halfWritten, silent];
