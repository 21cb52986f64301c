/** The folders of members below DATA/copies, as what drives a member uses them. */

import { TokenMap } from '../base/token-map.ts';
import { RealVolumeId } from '../control-protocol/names.ts';
import { assert } from '../model/errors.ts';
import type { Range } from '../peer-protocol/messages.ts';
import type { Token } from '../replication/effects.ts';
import { readBootId } from '../storage/boot-id.ts';
import { listCopyFolders, openCopyFolder, removeCopyFolder } from '../storage/copy-folder.ts';
import type { Slot } from '../storage/unsettled-journal.ts';
import type { OpenFolder } from './held-member.ts';
import type { MemberFolders } from './members.ts';

/** `bootId`: of the machine; by default what the kernel says. */
export function copyFolders(path: string, bootId = readBootId()): MemberFolders {
  return {
    open: (id, sizeBytes, isNew) => open(path, { realVolume: id, sizeBytes, bootId, isNew }),
    remove: (id) => removeCopyFolder(path, id),
    ids: async () => (await listCopyFolders(path)).map((id) => RealVolumeId.parse(id)),
  };
}

async function open(path: string, options: Parameters<typeof openCopyFolder>[1]): Promise<OpenFolder> {
  const { folder, unsettled, marked, hasLostCache, lacks } = await openCopyFolder(path, options);
  // The rules take these extents as marked, and do not ask for it again. They are: it costs nothing.
  await folder.mark(marked);
  const slots = new TokenMap<Slot>();
  return {
    found: {
      ...{ unsettled, marked, hasLostCache },
      lacks: new Map([...lacks].map(([member, bitmap]) => [member, [...bitmap.ranges()]])),
    },
    begun: (token: Token, range: Range) => {
      slots.add(token, folder.begin(range));
    },
    settled: (tokens) => {
      folder.settle(
        tokens.map((token) => {
          const slot = slots.take(token);
          assert(slot !== undefined, 'what is settled is in the journal');
          return slot;
        }),
      );
    },
    writeJournal: () => folder.writeJournal(),
    forgetUnsettled: () => folder.settleEarlier(),
    mark: (extents) => folder.mark(extents),
    unmark: (extents) => folder.unmark(extents),
    loseCache: () => folder.loseCache(),
    addMember: (member) => folder.addMember(member),
    setBits: (member, ranges) => folder.setBits(member, ranges),
    clearBits: (member, ranges) => folder.clearBits(member, ranges),
    forgetMember: (member) => folder.forgetMember(member),
    resize: (sizeBytes) => folder.resize(sizeBytes),
    close: (isClean) => (isClean ? folder.close() : folder.abandon()),
  };
}
