/** A copy group of two, and of three, over real connections between storage systems in this process. */

import { afterAll, beforeAll, describe, vi } from 'vitest';
import { allDuplex, MemberLab } from '../support/member-lab.ts';
import { volumeContract } from './volume-contract.ts';

// Each of many volumes is a group that has to come into step first.
vi.setConfig({ testTimeout: 120_000 });

describe.each([2, 3])('%i members', (systems) => {
  let lab: MemberLab;
  beforeAll(async () => {
    lab = await MemberLab.start({ systems });
  });
  afterAll(() => lab[Symbol.asyncDispose]());

  volumeContract('a ReplicatedVolume', {
    make: async (contents) => {
      const made = await lab.makeGroup(contents.length);
      await allDuplex(made);
      const [primary] = made.copies;
      if (primary === undefined) throw new Error('there is a primary');
      const volume = lab.volume(primary);
      await volume.write(0, contents, 0, contents.length, true);
      const dispose = async () => {
        await volume.close();
        for (const { storage, realVolume } of made.copies) {
          await lab.system(storage).realVolumes.remove(realVolume, true);
        }
      };
      return { volume, dispose };
    },
  });
});
