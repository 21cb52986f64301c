/** The end of a whole cluster, as Ctrl-C asks for it, is nothing that its copies have to be told of. */

import { writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { VolumeName } from '../../src/control-protocol/names.ts';
import { NbdClient } from '../support/client.ts';
import { pairsText } from '../support/copies.ts';
import { temporaryFolder } from '../support/tools.ts';
import { startUp, topologyText } from '../support/up.ts';

const shape = { storage: { 'east-1': {}, 'west-1': {} }, gateways: { 'east-gw': {} } };
const VOLUMES = Array.from({ length: 8 }, (_, at) => VolumeName.parse(`v${at}`));

test('copies that were in step when everything is stopped are so when it is back', async () => {
  const folder = await temporaryFolder();
  writeFileSync(folder.file('topology.yaml'), await topologyText(shape));
  const args = ['--topology', folder.file('topology.yaml'), '--data', folder.file('data')];
  const first = await startUp(args);
  try {
    for (const [at, name] of VOLUMES.entries()) {
      const [here, there] = at % 2 === 0 ? ['east-1', 'west-1'] : ['west-1', 'east-1'];
      await first.volary('volume', 'create', name, '--size', '1MiB', '--segment', here, '--copy', there);
      await first.volary('copy', 'wait', name, '--pair', 'duplex', '--timeout', '30s');
    }
    for (const name of VOLUMES) {
      const host = await NbdClient.open(first.ready.gateways['east-gw']?.uri ?? '', name);
      expect(await host.write(0, Buffer.alloc(4096, 1))).toBe(0); // and no flush
      if (name === VOLUMES[0]) await host.disconnect();
    }
    const newest = (await first.client.events({ limit: 1 })).at(-1)?.id ?? 0;
    expect(await first.up.stop()).toMatchObject({ code: 0 });
    const again = await startUp(args);
    try {
      const events = await again.client.events({ since: newest });
      expect(events.filter(({ kind }) => kind === 'copy.pair').map(({ text }) => text)).toEqual([]);
      for (const name of VOLUMES) expect(pairsText(await again.client.volume(name))).toMatch(/ duplex$/);
    } finally {
      await again.up.stop();
    }
  } finally {
    await first.up.stop();
    await folder.remove();
  }
});
