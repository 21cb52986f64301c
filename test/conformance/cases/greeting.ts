/** The greeting, client flags, and how option haggling ends. */
import { Buffer } from 'node:buffer';
import { Command, Option } from '../../../src/nbd-server-protocol/constants.ts';
import { checkedFlags, type Handshake, readOptionAnswer } from '../../support/nbd-handshake.ts';
import { Session } from '../../support/nbd-session.ts';
import { optionRequest, readGreeting, requestMessage, u32, type Wire } from '../../support/wire.ts';
import { type Case, finalName, goWith, optionInStep, requestInStep } from '../lab.ts';
import { disk } from '../servers.ts';

const NEWSTYLE = 'Newstyle negotiation';
const CLIENT_FLAGS = 'Client flags';
const FIXED = 'Fixed newstyle negotiation';

/** EXPORT_NAME, its reply of 10 bytes and 124 zeroes when they are due, then a read. */
export async function exportName(wire: Wire, name: string | Uint8Array, zeroes: boolean): Promise<string> {
  wire.send(optionRequest(Option.exportName, Buffer.from(name)));
  const head = await wire.read(10);
  const flags = checkedFlags(head.readUInt16BE(8));
  if (zeroes && !(await wire.read(124)).equals(Buffer.alloc(124))) return 'the reserved bytes are not zero';
  const session = new Session(wire, {
    style: 'simple',
    sizeBytes: head.readBigUInt64BE(0),
    flags,
    contexts: new Map(),
    maximumPayload: 33_554_432,
    chunkBytesMax: Number.POSITIVE_INFINITY,
  });
  if (session.terms.sizeBytes !== BigInt(disk.sizeBytes)) return `size ${session.terms.sizeBytes}`;
  return await requestInStep(session, 'exported');
}

const exportNameWithFlags = (name: string, clientFlags: number, zeroes: boolean): Case => ({
  name,
  section: CLIENT_FLAGS,
  permits: ['exported'],
  observe: async (lab) => {
    const { wire } = await lab.handshake(clientFlags);
    return await exportName(wire, lab.exportName, zeroes);
  },
});

const unknownClientFlag = (bit: number): Case => ({
  name: `client flag bit ${bit} is unknown`,
  section: CLIENT_FLAGS,
  permits: ['closed'],
  observe: async (lab) => {
    const { wire } = await lab.handshake();
    wire.destroy();
    const handshake = await lab.handshake((1 << bit) | 3);
    return finalName(await handshake.option(Option.list));
  },
});

/** An option of fixed newstyle from a client that has not said that it speaks it. */
const notFixed = (name: string, code: number, permits: readonly string[]): Case => ({
  name: `without FIXED_NEWSTYLE: ${name}`,
  section: CLIENT_FLAGS,
  permits,
  observe: async (lab) => finalName(await (await lab.handshake(0)).option(code)),
});

const greeting: Case = {
  name: 'greeting: magics and handshake flags',
  section: NEWSTYLE,
  permits: ['handshake flags 3'],
  observe: async (lab) => `handshake flags ${await readGreeting(await lab.wire())}`,
};

const clientSpeaksFirst: Case = {
  name: 'client flags and an option before the greeting was read',
  section: NEWSTYLE,
  permits: ['ACK'],
  observe: async (lab) => {
    const wire = await lab.wire();
    wire.send(u32(3), optionRequest(Option.list));
    await readGreeting(wire);
    return finalName(await readOptionAnswer(wire, Option.list));
  },
};

const dribbled: Case = {
  name: 'client flags and options byte by byte',
  section: NEWSTYLE,
  permits: ['ACK'],
  observe: async (lab) => {
    const wire = await lab.wire();
    await readGreeting(wire);
    await wire.sendInPieces(Buffer.concat([u32(3), optionRequest(Option.list)]), 1);
    return finalName(await readOptionAnswer(wire, Option.list));
  },
};

const wrongMagic: Case = {
  name: 'an option with a wrong magic',
  section: 'Termination of the session during option haggling',
  permits: ['closed'],
  observe: async (lab) => {
    const handshake = await lab.handshake();
    return finalName(await handshake.option(Option.list, undefined, { magic: 0x49484156454f5055n }));
  },
};

const pipelinedOptions: Case = {
  name: 'options sent together are answered in order',
  section: FIXED,
  permits: ['LIST ACK, STRUCTURED_REPLY ACK, INFO ACK'],
  observe: async (lab) => {
    const { wire } = await lab.handshake();
    wire.send(
      optionRequest(Option.list),
      optionRequest(Option.structuredReply),
      optionRequest(Option.info, goName(Buffer.from(lab.exportName))),
    );
    const first = finalName(await readOptionAnswer(wire, Option.list));
    const second = finalName(await readOptionAnswer(wire, Option.structuredReply));
    const third = finalName(await readOptionAnswer(wire, Option.info));
    return `LIST ${first}, STRUCTURED_REPLY ${second}, INFO ${third}`;
  },
};

const abort = (name: string, data: Buffer): Case => ({
  name,
  section: 'Option types: NBD_OPT_ABORT',
  permits: ['ACK, closed'],
  observe: async (lab) => {
    const handshake = await lab.handshake();
    const answer = finalName(await handshake.option(Option.abort, data));
    handshake.wire.halfClose();
    const rest = await handshake.wire.readToEnd();
    return rest.length === 0 ? `${answer}, closed` : `${answer}, ${rest.length} bytes more`;
  },
});

const abortThenOption: Case = {
  name: 'an option behind ABORT is not served',
  section: 'Option types: NBD_OPT_ABORT',
  permits: ['closed'],
  observe: async (lab) => {
    const handshake = await lab.handshake();
    handshake.wire.send(optionRequest(Option.abort), optionRequest(Option.list));
    await readOptionAnswer(handshake.wire, Option.abort);
    return finalName(await readOptionAnswer(handshake.wire, Option.list));
  },
};

/** A client that goes away at some point of the handshake; the next one must not notice. */
const leaves = (when: string, act: (handshake: Handshake) => void): Case => ({
  name: `a client leaves ${when}`,
  section: 'Termination of the session during option haggling',
  permits: ['next client: ACK'],
  observe: async (lab) => {
    const handshake = await lab.handshake();
    act(handshake);
    const next = await lab.handshake();
    return `next client: ${finalName(await next.option(Option.list))}`;
  },
});

const pipelinedRequest = (
  name: string,
  code: number,
  dataOf: (name: Buffer) => Buffer,
  section: string,
): Case => ({
  name,
  section,
  permits: ['served'],
  observe: async (lab) => {
    const { wire } = await lab.handshake();
    const request = requestMessage('simple', {
      type: Command.read,
      cookie: 7n,
      offset: disk.data,
      length: 512,
    });
    wire.send(optionRequest(code, dataOf(Buffer.from(lab.exportName))), request);
    if (code === Option.exportName) await wire.read(10);
    else await readOptionAnswer(wire, code);
    const head = await wire.read(16);
    if (head.readUInt32BE(4) !== 0 || head.readBigUInt64BE(8) !== 7n) return 'wrong reply';
    await wire.read(512);
    return 'served';
  },
});

const goName = (name: Buffer): Buffer => Buffer.concat([u32(name.length), name, Buffer.from([0, 0])]);

const goWithoutFixed: Case = {
  ...notFixed('GO', Option.go, []),
  permits: ['served', 'closed', 'violation: GO answered ERR_INVALID'],
  observe: async (lab) => {
    const session = await goWith(lab, await lab.handshake(0), 'simple');
    return await requestInStep(session, 'served');
  },
};

const noTlsRequired: Case = {
  name: 'STARTTLS in the clear',
  section: 'NOTLS mode',
  permits: ['ERR_UNSUP', 'ERR_POLICY'],
  observe: async (lab) => {
    const handshake = await lab.handshake();
    return await optionInStep(handshake, finalName(await handshake.option(Option.starttls)));
  },
};

export const greetingCases: readonly Case[] = [
  greeting,
  clientSpeaksFirst,
  dribbled,
  exportNameWithFlags('client flags 0: EXPORT_NAME with 124 zeroes', 0, true),
  exportNameWithFlags('client flag FIXED_NEWSTYLE: EXPORT_NAME with 124 zeroes', 1, true),
  exportNameWithFlags('client flag NO_ZEROES alone: EXPORT_NAME without zeroes', 2, false),
  exportNameWithFlags('client flags FIXED_NEWSTYLE and NO_ZEROES: EXPORT_NAME without zeroes', 3, false),
  ...[2, 3, 15, 16, 30, 31].map(unknownClientFlag),
  goWithoutFixed,
  notFixed('LIST', Option.list, ['ACK', 'ERR_INVALID', 'closed']),
  notFixed('STARTTLS', Option.starttls, ['ERR_UNSUP', 'ERR_POLICY', 'ERR_INVALID', 'closed']),
  wrongMagic,
  pipelinedOptions,
  abort('ABORT', Buffer.alloc(0)),
  abort('ABORT with data', Buffer.from('goodbye')),
  abortThenOption,
  noTlsRequired,
  leaves('before its flags are complete', ({ wire }) => wire.destroy('reset')),
  leaves('in the midst of an option header', ({ wire }) => {
    wire.send(optionRequest(Option.list).subarray(0, 9));
    wire.halfClose();
  }),
  leaves('in the midst of the data of an option', ({ wire }) => {
    wire.send(optionRequest(Option.go, goName(Buffer.from('disk.img'))).subarray(0, 22));
    wire.destroy();
  }),
  leaves('right after ABORT', ({ wire }) => {
    wire.send(optionRequest(Option.abort));
    wire.destroy('reset');
  }),
  pipelinedRequest(
    'a request right behind GO',
    Option.go,
    goName,
    'Option types: NBD_OPT_INFO and NBD_OPT_GO',
  ),
  pipelinedRequest(
    'a request right behind EXPORT_NAME',
    Option.exportName,
    (name) => name,
    'Option types: NBD_OPT_EXPORT_NAME',
  ),
];
