/** A piece of a volume, or of a file, in bytes. */
export interface Range {
  readonly offset: number;
  readonly length: number;
}
