/**
 * What the two ends of a pair's connection look like to who drives a member. connect.ts makes a PrimaryLink, PeerServer SecondaryLinks.
 *
 * Invariants
 *  1. Nothing is called from within a call of a link's methods: `onMessages` and `onClosed` come later, of their own accord.
 *  2. `onClosed` is called exactly once, whoever ended the link; nothing is called after it. From `close` and `destroy` on no
 *     message is handed over.
 *  3. Messages are handed over in the order in which they were sent, those that were received together in one call. What is sent in one
 *     turn of the event loop leaves together, at its end, or at `flush`.
 *  4. A message that is sent on a link that is not open goes nowhere: the link's end tells that.
 */

import type { PeerError } from './errors.ts';
import type {
  Hello,
  PrimaryMessage,
  Range,
  Refusal,
  RefusalCode,
  SecondaryMessage,
  Welcome,
} from './messages.ts';

export interface LinkEvents<Message> {
  onMessages(batch: readonly Message[]): void;
  onClosed(reason: PeerError): void;
}

interface Link {
  /** False from the moment of its end on, which may be before `onClosed`. */
  readonly isOpen: boolean;
  /** What was sent leaves now. */
  flush(): void;
  /** Lets what was sent leave, then closes. */
  close(): void;
  /** Closes at once; what has not left yet is forgotten, by the kernel, too. */
  destroy(): void;
}

export interface PrimaryLink extends Link {
  /** Once, when the owner is ready for messages: until then none is received. */
  start(events: LinkEvents<SecondaryMessage>): void;
  /**
   * Operations go in the order of their `seq`, as the secondary's window allows; a heartbeat does not wait for the window. Each says
   * the highest `confirmed` that this link has been told, as far as it has been sent. The payload of a write must not change until its ack or the link's end.
   */
  send(message: PrimaryMessage): void;
  readonly unacknowledged: { readonly operations: number; readonly bytes: number };
  /** Operations that wait for the window. */
  readonly waiting: number;
}

/** What a secondary says to a hello that it accepts. */
export interface Answer {
  readonly welcome: Omit<Welcome, 'kind'>;
  readonly unsettled: readonly Range[];
  readonly alone: readonly Range[];
}

export interface SecondaryLink extends Link {
  readonly hello: Hello;
  /** Of the peer, for messages. */
  readonly remote: string;
  /** Once: operations come from here on. Ranges may be told coarser than they are. */
  accept(answer: Answer): void;
  /** Instead, and closes. */
  refuse(refusal: { readonly code: RefusalCode; readonly epoch: number; readonly text: string }): void;
  /** Every operation is acknowledged once. The payload of a write is this link's again when it has been. */
  send(message: SecondaryMessage): void;
}

/** Whoever takes a link in gives what is called from then on. */
export type HelloHandler = (link: SecondaryLink) => LinkEvents<PrimaryMessage>;

export type Connected =
  | {
      readonly kind: 'connected';
      readonly link: PrimaryLink;
      readonly welcome: Welcome;
      readonly unsettled: readonly Range[];
      readonly alone: readonly Range[];
    }
  | { readonly kind: 'refused'; readonly refusal: Refusal };
