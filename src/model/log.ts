/** What the parts say about themselves: structured lines, as the logger of runtime/ (and pino) takes them. */
export interface Log {
  debug(fields: object, text: string): void;
  info(fields: object, text: string): void;
  warn(fields: object, text: string): void;
  error(fields: object, text: string): void;
}
