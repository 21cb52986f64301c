/**
 * Export names of real volumes at their storage system:
 *
 *   rv-0123456789abcdef               for looking and checking, with any NBD client: read-only
 *   rv-0123456789abcdef@7.KEY         for use: only with the epoch and the access key that the storage system has
 */

import { AccessKey, Epoch, RealVolumeId } from './names.ts';

export interface RealVolumeExport {
  readonly realVolume: RealVolumeId;
  /** Without it, the export is for checking. */
  readonly access: { readonly epoch: Epoch; readonly key: AccessKey } | undefined;
}

export function formatRealVolumeExport(realVolume: RealVolumeId, epoch: Epoch, key: AccessKey): string {
  return `${realVolume}@${epoch}.${key}`;
}

/** undefined: no real volume is called so. */
export function parseRealVolumeExport(name: string): RealVolumeExport | undefined {
  const [, idText, epochText, keyText] =
    /^(rv-[0-9a-f]{16})(?:@([1-9]\d{0,14})\.([0-9a-f]{32}))?$/.exec(name) ?? [];
  if (idText === undefined) return undefined;
  const realVolume = RealVolumeId.parse(idText);
  if (epochText === undefined || keyText === undefined) return { realVolume, access: undefined };
  return { realVolume, access: { epoch: Epoch.parse(Number(epochText)), key: AccessKey.parse(keyText) } };
}
