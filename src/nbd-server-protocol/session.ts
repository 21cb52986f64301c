/**
 * What the two sides know when the handshake is over. Role: the values that go between the handshake machines
 * and whoever drives them; no behaviour.
 */

import type { HeaderStyle } from './constants.ts';

/** "Size constraints", in bytes. */
export interface ExportBlockSizes {
  /** A power of 2 up to 65,536. */
  readonly minimum: number;
  /** A power of 2, at least 512 and at least `minimum`. */
  readonly preferred: number;
  /** At least `preferred`, at most 0xffffffff. */
  readonly maximumPayload: number;
}

/** What a server says about one export. */
export interface ExportInfo {
  /** The canonical name: the one that LIST shows. */
  readonly name: string;
  readonly description?: string;
  /** Up to 2^53 - 1. */
  readonly sizeBytes: number;
  /** TransmissionFlag bits, without sendDf and blockStatusPayload: the handshake adds those when they hold. */
  readonly transmissionFlags: number;
  readonly blockSizes: ExportBlockSizes;
  /** Names of the metadata contexts that a client may select, such as 'base:allocation'. */
  readonly metaContexts: readonly string[];
}

/** One line of LIST. */
export interface ExportEntry {
  readonly name: string;
  readonly description?: string;
}

/** A metadata context that was selected; `id` is how block status chunks call it. */
export interface SelectedContext {
  readonly id: number;
  readonly name: string;
}

/** What both sides agreed on: everything that the transmission phase needs to know. */
export interface NegotiatedSession {
  /** The canonical name. */
  readonly exportName: string;
  /** The name that the client asked for: '' for the default export. */
  readonly requestedName: string;
  readonly headerStyle: HeaderStyle;
  /** Empty when BLOCK_STATUS may not be used. */
  readonly contexts: readonly SelectedContext[];
  /** As sent to the client: with sendDf and blockStatusPayload where they hold. */
  readonly transmissionFlags: number;
  readonly blockSizes: ExportBlockSizes;
  /** The client asked for NBD_INFO_BLOCK_SIZE in GO, and so has promised to keep to `blockSizes`. */
  readonly blockSizesPromised: boolean;
}

/** Which export a client wants, and how. */
export interface ConnectGoal {
  readonly kind: 'connect';
  /** '' is the default export. */
  readonly exportName: string;
  /** The best style to ask for; a server without it gets the next: extended, structured, simple. */
  readonly headerStyle: HeaderStyle;
  /** Contexts to select, as far as the server has them (not with simple replies). */
  readonly metaContexts: readonly string[];
  /** Ask for NBD_INFO_BLOCK_SIZE, and so promise to keep to the answer. */
  readonly requestBlockSizes: boolean;
  /** False: EXPORT_NAME at once, as old clients do; at most structured replies. */
  readonly useGo: boolean;
}

/** A connection to an export, or a list of all of them. */
export type ClientGoal = ConnectGoal | { readonly kind: 'list' };

/** What a client knows of its export. */
export interface ClientSession extends NegotiatedSession {
  readonly sizeBytes: number;
}

/** What holds when a server does not say ("Size constraints"). */
export const DEFAULT_BLOCK_SIZES: ExportBlockSizes = {
  minimum: 1,
  preferred: 4096,
  maximumPayload: 32 * 1024 * 1024,
};
