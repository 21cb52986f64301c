/**
 * The string rules of the protocol ("Conventions"): UTF-8, no NUL, at most 4,096 bytes. Role: the one place
 * that turns wire bytes into strings and strings into wire bytes.
 */

import { Buffer, isUtf8 } from 'node:buffer';
import { Limit } from './constants.ts';
import { ProtocolError, requireThat } from './errors.ts';

/** Throws ProtocolError 'bad-message'; `what` names the string in the message. */
export function decodeString(bytes: Buffer, what: string): string {
  if (bytes.length > Limit.stringBytes) {
    throw new ProtocolError(
      'bad-message',
      `${what} has ${bytes.length} bytes, the most is ${Limit.stringBytes}`,
    );
  }
  if (bytes.includes(0)) throw new ProtocolError('bad-message', `${what} contains a NUL byte`);
  if (!isUtf8(bytes)) throw new ProtocolError('bad-message', `${what} is not UTF-8`);
  return bytes.toString('utf8');
}

/** Whether a name can be sent as it is; what offers exports checks this when it learns of them. */
export function isProtocolString(text: string): boolean {
  return text.isWellFormed() && !text.includes('\0') && Buffer.byteLength(text) <= Limit.stringBytes;
}

export function encodeString(text: string): Buffer {
  requireThat(isProtocolString(text), 'a string breaks the string rules of the protocol');
  return Buffer.from(text, 'utf8');
}

/** For texts that people read: what breaks the rules is replaced, what is too long is cut between characters. */
export function encodeText(text: string, bytesMax: number = Limit.stringBytes): Buffer {
  const bytes = Buffer.from(text.toWellFormed().replaceAll('\0', '\ufffd'), 'utf8');
  if (bytes.length <= bytesMax) return bytes;
  let end = bytesMax;
  while (end > 0 && (bytes[end]! & 0xc0) === 0x80) end--;
  return bytes.subarray(0, end);
}

/** A peer's string in a message of ours: quoted, without control characters, and short. */
export function quote(text: string): string {
  const characters = Array.from(text);
  return JSON.stringify(characters.length > 80 ? `${characters.slice(0, 80).join('')}…` : text);
}
