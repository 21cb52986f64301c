/** In what pieces it is known where copies differ: said once, for the rules of copies and for the files that keep what they know. */

/** What difference bitmaps count. */
export const BLOCK_BYTES = 4096;
/** What the activity log counts. */
export const EXTENT_BYTES = 4 * 1024 * 1024;
