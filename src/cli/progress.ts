/** What a person sees on a terminal while something takes longer than a moment: one line on stderr, gone at the end. */

const FIRST_AFTER_MS = 1_000;
const AGAIN_AFTER_MS = 500;
const ERASE_LINE = '\r\x1b[2K';

/** Waits for `work`; meanwhile shows `what()` and the seconds so far. */
export async function withProgress<T>(work: Promise<T>, what: () => string): Promise<T> {
  if (!process.stderr.isTTY) return work;
  const startedAtMs = performance.now();
  let shown = false;
  const timer = setInterval(() => {
    const passedMs = performance.now() - startedAtMs;
    if (passedMs < FIRST_AFTER_MS) return;
    shown = true;
    process.stderr.write(`${ERASE_LINE}${what()} … ${Math.floor(passedMs / 1000)} s`);
  }, AGAIN_AFTER_MS);
  try {
    return await work;
  } finally {
    clearInterval(timer);
    if (shown) process.stderr.write(ERASE_LINE);
  }
}
