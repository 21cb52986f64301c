/** Real volumes that become shorter or longer under a gateway, and paths that come to nothing. */

import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Capabilities } from '../../../src/model/volume.ts';
import { outcomeOf } from '../../contract/model-run.ts';
import { GatewayLab } from '../../support/cluster/gateway-lab.ts';
import { silentLog } from '../../support/log.ts';
import { eventually } from '../../support/tools.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';

const MIB = 1024 * 1024;
const block = Buffer.alloc(4096, 5);

class ReadOnlyVolume extends MemoryVolume {
  override readonly capabilities: Capabilities = {
    write: false,
    flush: true,
    trim: false,
    writeZeroes: false,
    fastZero: false,
    blockStatus: true,
    cache: true,
    resize: false,
  };
}

let lab: GatewayLab;
beforeEach(async () => {
  lab = await GatewayLab.start();
});
afterEach(() => lab.stop());

async function restart(index: 0 | 1): Promise<void> {
  await lab.storage[index].stop();
  await lab.storage[index].start();
}

test('V5: a volume that was made smaller outlives the next restart of its storage system', async () => {
  const inner = new MemoryVolume(Buffer.alloc(2 * MIB));
  const segment = lab.real(0, inner);
  lab.volume('disk', [segment]);
  const host = await lab.host(await lab.gateway(), 'disk');
  lab.volume('disk', [{ ...segment, length: MIB }]);
  await eventually('the end', async () =>
    (await outcomeOf(host.read(MIB, Buffer.alloc(512), 0, 512))) === 'invalid' ? true : undefined,
  );
  await inner.resize(MIB);
  await restart(0);
  expect(await outcomeOf(host.write(0, block, 0, 4096, true))).toBe('done');
  await inner.resize(2 * MIB);
  lab.volume('disk', [segment]);
  await eventually('it has grown again', async () =>
    (await outcomeOf(host.write(2 * MIB - 4096, block, 0, 4096, true))) === 'done' ? true : undefined,
  );
});

test('V5: a real volume that has grown for nothing, and was cut again, is no less than before', async () => {
  const inner = new MemoryVolume(Buffer.alloc(MIB));
  lab.volume('disk', [lab.real(0, inner)]);
  const host = await lab.host(await lab.gateway(), 'disk');
  for (const sizeBytes of [2 * MIB, MIB]) {
    await inner.resize(sizeBytes);
    await restart(0);
    expect(await outcomeOf(host.write(0, block, 0, 4096, true))).toBe('done');
  }
});

test('a volume that was made smaller, of which only the cut is noticed: the directory is asked', async () => {
  const inner = new MemoryVolume(Buffer.alloc(2 * MIB));
  const segment = lab.real(0, inner);
  lab.volume('disk', [segment]);
  const host = await lab.host(await lab.gateway(), 'disk');
  lab.directory.muted = true;
  lab.volume('disk', [{ ...segment, length: MIB }]);
  await inner.resize(MIB);
  await restart(0);
  expect(await outcomeOf(host.write(0, block, 0, 4096, true))).toBe('done');
});

test('a path that has failed for good gets a successor when something changes', async () => {
  const inner = new MemoryVolume(Buffer.alloc(MIB));
  const segment = lab.real(0, inner);
  lab.volume('disk', [segment]);
  const watchedLog = {
    ...silentLog,
    refused: 0,
    warn: (_fields: object, text: string) => {
      if (text === 'a change of a volume cannot be made yet') watchedLog.refused += 1;
    },
  };
  const host = await lab.host(await lab.gateway('east-gw', { log: watchedLog }), 'disk');
  await lab.storage[0].stop();
  lab.storage[0].put(segment.realVolume as never, new ReadOnlyVolume(Buffer.alloc(MIB)));
  await lab.storage[0].start();
  expect(await outcomeOf(host.write(0, block, 0, 4096, true))).toBe('io');
  const { refused } = watchedLog;
  lab.directory.putStorage(lab.storage[0].record);
  await eventually('a successor that is no better', () => (watchedLog.refused > refused ? true : undefined));
  lab.storage[0].put(segment.realVolume as never, inner);
  lab.directory.putStorage(lab.storage[0].record);
  await eventually('the successor', async () =>
    (await outcomeOf(host.write(0, block, 0, 4096, true))) === 'done' ? true : undefined,
  );
});
