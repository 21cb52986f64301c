/** An NbdServer in this process around a given Volume, and sessions to it. */

import type { Volume } from '../../../src/model/volume.ts';
import { NbdServer } from '../../../src/nbd/server.ts';
import { silentLog } from '../../support/log.ts';
import { Session, type SessionOptions } from '../../support/nbd-session.ts';
import type { Address } from '../../support/wire.ts';

export interface Lab extends AsyncDisposable {
  readonly server: NbdServer;
  readonly address: Address;
  open(options?: SessionOptions): Promise<Session>;
}

export async function lab(volume: Volume): Promise<Lab> {
  const served = { name: 'disk', volume };
  const server = new NbdServer({
    exports: { list: () => [served], find: (name) => (name === '' || name === 'disk' ? served : undefined) },
    log: silentLog,
    drainMs: 500,
  });
  const address = (await server.listen({ host: '127.0.0.1', port: 0 })) as Address;
  const sessions: Session[] = [];
  return {
    server,
    address,
    open: async (options) => {
      const session = await Session.open(address, options);
      sessions.push(session);
      return session;
    },
    [Symbol.asyncDispose]: async () => {
      for (const session of sessions) session.wire.destroy();
      await server.stop();
    },
  };
}

/** Bytes that differ from place to place, so that data out of place is seen. */
export function pattern(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at + 4 <= length; at += 4) bytes.writeUInt32LE((at * 2654435761) >>> 0, at);
  return bytes;
}
