/**
 * Names and identities as they travel between processes: one schema for the API, the types and the catalog. A name is never
 * used as a path, and yet none is allowed that could be one: no separators, no leading dot, no control characters.
 */

import { z } from 'zod';

const VOLUME_NAME_BYTES_MAX = 255;

/**
 * What a host uses as export name: letters and digits of any script, then also `.`, `_` and `-`; NFC, up to 255 bytes of UTF-8.
 */
export const VolumeName = z
  .string()
  .max(VOLUME_NAME_BYTES_MAX, 'a volume name has at most 255 bytes')
  .regex(
    /^[\p{L}\p{N}][\p{L}\p{N}\p{M}._-]*$/u,
    'a volume name starts with a letter or digit and has only letters, digits, ".", "_" and "-"',
  )
  .refine(
    (name) => name.isWellFormed() && name === name.normalize('NFC'),
    'a volume name is in Unicode form NFC',
  )
  .refine((name) => Buffer.byteLength(name) <= VOLUME_NAME_BYTES_MAX, 'a volume name has at most 255 bytes')
  .brand<'VolumeName'>()
  .describe('Name of a virtual volume, which is its export name at every gateway');
export type VolumeName = z.infer<typeof VolumeName>;

function plainName<Brand extends string>(what: string) {
  return z
    .string()
    .regex(
      /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/,
      `the name of ${articleOf(what)} ${what} has 1 to 63 letters, digits, ".", "_" and "-", and starts with a letter or digit`,
    )
    .brand<Brand>()
    .describe(`Name of ${articleOf(what)} ${what}`);
}

function articleOf(what: string): string {
  return /^[aeiou]/.test(what) ? 'an' : 'a';
}

export const StorageName = plainName<'StorageName'>('storage system');
export type StorageName = z.infer<typeof StorageName>;
export const GatewayName = plainName<'GatewayName'>('gateway');
export type GatewayName = z.infer<typeof GatewayName>;
export const SiteName = plainName<'SiteName'>('site');
export type SiteName = z.infer<typeof SiteName>;
export const GroupName = plainName<'GroupName'>('group');
export type GroupName = z.infer<typeof GroupName>;

export const InterfaceName = plainName<'InterfaceName'>('interface');
export type InterfaceName = z.infer<typeof InterfaceName>;

/** A real volume, in the whole cluster: `rv-` and 16 hexadecimal digits. Also the stem of its file's name. */
export const RealVolumeId = z
  .string()
  .regex(/^rv-[0-9a-f]{16}$/, 'a real volume is called rv- and 16 hexadecimal digits')
  .brand<'RealVolumeId'>();
export type RealVolumeId = z.infer<typeof RealVolumeId>;

/** Who knows it may use the real volume: 32 hexadecimal digits, told by the directory to gateways. */
export const AccessKey = z
  .string()
  .regex(/^[0-9a-f]{32}$/, 'an access key has 32 hexadecimal digits')
  .brand<'AccessKey'>();
export type AccessKey = z.infer<typeof AccessKey>;

export const OperationId = z
  .string()
  .regex(/^op-[0-9a-f]{16}$/, 'an operation is called op- and 16 hexadecimal digits')
  .brand<'OperationId'>();
export type OperationId = z.infer<typeof OperationId>;

/** Identity of the cluster, made with the directory's data folder; and of a role's data folder. */
export const Identity = z.uuid();

/** Counts changes of who is primary, from 1. */
export const Epoch = z.int().min(1).brand<'Epoch'>();
export type Epoch = z.infer<typeof Epoch>;

export const Bytes = z.int().min(0).describe('bytes');

/** Volumes and their segments are made of whole sectors and whole pages. */
export const SECTOR_BYTES = 512;
export const SEGMENT_ALIGNMENT_BYTES = 4096;

export const VolumeSize = Bytes.min(SECTOR_BYTES, 'a volume has at least 512 bytes').refine(
  (sizeBytes) => sizeBytes % SECTOR_BYTES === 0,
  'the size of a volume is a multiple of 512 bytes',
);

export const Host = z.string().regex(/^[\w.:%-]{1,255}$/, 'a host is a name or an address');
export const Endpoint = z.object({ host: Host, port: z.int().min(1).max(65_535) });
export type Endpoint = z.infer<typeof Endpoint>;
export const HttpUrl = z.url({ protocol: /^http$/ });
