/** Nobody reads what we print any more (`volary … | head`): no reason to let go of clients. */
export function ignoreBrokenPipe(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE') throw error;
}
