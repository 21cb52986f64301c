/** What a Volume can do, as NBD says it: transmission flags follow from capabilities alone. */

import { BASE_ALLOCATION, TransmissionFlag } from '../nbd-server-protocol/constants.ts';
import type { ExportInfo } from '../nbd-server-protocol/session.ts';
import type { NbdExport } from './live-export.ts';

export function exportInfo(nbdExport: NbdExport): ExportInfo {
  const { name, volume, description } = nbdExport;
  const { capabilities } = volume;
  const writable = capabilities.write && nbdExport.readOnly !== true;
  let flags = TransmissionFlag.hasFlags;
  if (!writable) flags |= TransmissionFlag.readOnly;
  if (capabilities.flush) flags |= TransmissionFlag.sendFlush;
  // FUA and several connections need a flush that is real; nothing can be lost where nothing is written.
  if (capabilities.flush || !writable) flags |= TransmissionFlag.canMultiConn;
  if (capabilities.cache) flags |= TransmissionFlag.sendCache;
  if (writable) {
    if (capabilities.flush) flags |= TransmissionFlag.sendFua;
    if (capabilities.trim) flags |= TransmissionFlag.sendTrim;
    if (capabilities.writeZeroes) flags |= TransmissionFlag.sendWriteZeroes;
    if (capabilities.writeZeroes && capabilities.fastZero) flags |= TransmissionFlag.sendFastZero;
    if (capabilities.resize) flags |= TransmissionFlag.sendResize;
  }
  return {
    name,
    ...(description === undefined ? {} : { description }),
    sizeBytes: volume.sizeBytes,
    transmissionFlags: flags,
    blockSizes: volume.blockSizes,
    metaContexts: capabilities.blockStatus ? [BASE_ALLOCATION] : [],
  };
}
