/** libnbd, through its Python shell: a client that knows the protocol well and can be told to break it. */

import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, test } from 'vitest';
import { makeSparse } from '../support/layout.ts';
import { nbdsh } from '../support/nbdsh.ts';
import { type RunningServer, startServe } from '../support/server.ts';
import { type TemporaryFolder, temporaryFolder } from '../support/tools.ts';

const MiB = 1024 * 1024;
const SIZE = 64 * MiB;

function script(name: string): string {
  return join(import.meta.dirname, 'nbdsh', `${name}.py`);
}

describe('nbdsh', () => {
  let folder: TemporaryFolder;
  let server: RunningServer;
  let uri: string;

  beforeAll(async () => {
    folder = await temporaryFolder();
    await makeSparse(folder.file('first.img'), SIZE, [{ offset: MiB, length: MiB }]);
    const second = await open(folder.file('second.img'), 'w');
    await second.truncate(12345);
    await second.close();
    server = await startServe([
      folder.file('first.img'),
      folder.file('second.img'),
      '--listen',
      'nbd://127.0.0.1:0',
    ]);
    uri = server.uris[0] as string;
  });

  afterAll(async () => {
    await server?.stop();
    await folder?.remove();
  });

  test.each(['1', '0'])('N1: every command and flag (structured replies: %s)', async (structured) => {
    await nbdsh(script('commands'), {
      URI: uri,
      FILE: folder.file('first.img'),
      SIZE: `${SIZE}`,
      STRUCTURED: structured,
    });
  });

  test('N1: LIST, INFO, LIST_META_CONTEXT, GO and ABORT, one after another on one connection', async () => {
    await nbdsh(script('options'), { URI: uri, NAMES: 'first.img,second.img', SIZES: `${SIZE},12345` });
  });

  test('hundreds of requests in flight come back complete and unmixed', async () => {
    await nbdsh(script('in_flight'), { URI: uri, SIZE: `${SIZE}` });
  });

  test('N3: write on one connection, flush on another, read on a third', async () => {
    await nbdsh(script('multi_conn'), { URI: uri });
  });
});
