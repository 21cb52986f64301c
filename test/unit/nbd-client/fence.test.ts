/** R5: a write that is sent again, while its old copy is still under way at the server. */

import { expect, test } from 'vitest';
import { openRemoteVolume, type RemoteState } from '../../../src/nbd-client/remote-volume.ts';
import { silentLog } from '../../support/log.ts';
import { eventually } from '../../support/tools.ts';
import { DelayVolume, Gate } from '../../support/volumes/delay-volume.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';
import { lab } from '../nbd/lab.ts';

test('R5: the server holds the new copy until the old one has ended, so a later write stays the last', async () => {
  const gate = new Gate();
  const inner = new MemoryVolume(Buffer.alloc(8192));
  await using server = await lab(new DelayVolume(inner, gate.delay));
  const states: RemoteState[] = [];
  const volume = await openRemoteVolume({
    address: server.address,
    exportName: 'disk',
    connections: 1,
    reconnectMs: 2000,
    log: silentLog,
    onState: (state) => states.push(state),
  });
  gate.shut('write');
  const first = volume.write(0, Buffer.alloc(4096, 1), 0, 4096, false);
  await eventually('the old copy', () => (gate.held.length === 1 ? true : undefined));
  // The server is silent for too long: the connection is given up, and the write sent again.
  await eventually('the second connection', () => (states.length === 3 ? true : undefined));
  await new Promise((resolve) => setTimeout(resolve, 100)); // the new copy is at the server, before the gate
  expect(gate.held).toHaveLength(1);
  gate.letOneGo();
  await eventually('the new copy', () => (gate.held.length === 1 ? true : undefined));
  gate.open();
  await first;
  await volume.write(0, Buffer.alloc(4096, 2), 0, 4096, false);
  const bytes = Buffer.alloc(4096);
  inner.readNow(0, bytes, 0, 4096);
  expect(bytes.equals(Buffer.alloc(4096, 2))).toBe(true);
  await volume.close();
});
