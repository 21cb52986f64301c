/** Where a server finds what it offers, and how that says that something cannot be had. */

import { VolaryError } from '../model/errors.ts';
import type { ExportEntry } from '../nbd-server-protocol/session.ts';
import type { NbdExport } from './live-export.ts';

export interface ExportDirectory {
  list(): Iterable<ExportEntry>;
  /**
   * The export of that name; `find('')` is the default export. Asked for each option that names an export, so several
   * times by most clients; one that has been found need not be used.
   * @throws ExportRefused (or rejects with it): the client is told why, and may ask for another
   */
  find(name: string): NbdExport | undefined | Promise<NbdExport | undefined>;
}

export type ExportRefusedCode =
  | 'unknown' //   there is no such export: as finding nothing, with a text of its own
  | 'policy' //    it is there, and not for this client, or not now
  | 'shutdown'; // it is being taken away from here

/** An export cannot be had; the message is sent to the client. */
export class ExportRefused extends VolaryError {
  readonly code: ExportRefusedCode;
  constructor(code: ExportRefusedCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}
