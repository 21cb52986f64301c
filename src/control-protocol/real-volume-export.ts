/**
 * Export names of real volumes at their storage system:
 *
 *   rv-0123456789abcdef               for looking and checking, with any NBD client: read-only
 *   rv-0123456789abcdef@7.KEY         for use: only with the epoch and the access key that the storage system has
 *   rv-0123456789abcdef@7.KEY.alone   the same, and only when nothing comes through passages any more, nor will in this epoch: for a gateway
 *                                     that may have to send again what it, or an earlier life of it, has sent to another primary
 *   rv-0123456789abcdef@7.KEY.passage for a member that has handed over to this one: what its own hosts still ask (replication/SPEC.md, I16)
 */

import { AccessKey, Epoch, RealVolumeId } from './names.ts';

export type AccessManner = 'ordinary' | 'alone' | 'passage';

export interface RealVolumeExport {
  readonly realVolume: RealVolumeId;
  /** Without it, the export is for checking. */
  readonly access:
    | { readonly epoch: Epoch; readonly key: AccessKey; readonly manner: AccessManner }
    | undefined;
}

export function formatRealVolumeExport(
  realVolume: RealVolumeId,
  epoch: Epoch,
  key: AccessKey,
  manner: AccessManner = 'ordinary',
): string {
  return `${realVolume}@${epoch}.${key}${manner === 'ordinary' ? '' : `.${manner}`}`;
}

/** undefined: no real volume is called so. */
export function parseRealVolumeExport(name: string): RealVolumeExport | undefined {
  const [, idText, epochText, keyText, manner = 'ordinary'] =
    /^(rv-[0-9a-f]{16})(?:@([1-9]\d{0,14})\.([0-9a-f]{32})(?:\.(alone|passage))?)?$/.exec(name) ?? [];
  if (idText === undefined) return undefined;
  const realVolume = RealVolumeId.parse(idText);
  if (epochText === undefined || keyText === undefined) return { realVolume, access: undefined };
  const [epoch, key] = [Epoch.parse(Number(epochText)), AccessKey.parse(keyText)];
  return { realVolume, access: { epoch, key, manner: manner as AccessManner } };
}
