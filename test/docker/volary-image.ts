/** The image that docker/Dockerfile makes, in a test's engine. */

import { baseImageArchive } from '../support/docker-base.ts';
import type { DockerEngine } from '../support/docker-engine.ts';

/** The Dockerfile's own default. */
const baseImage = 'node:24-bookworm-slim';

/** Gives the engine what it would pull from a registry. */
export async function importBaseImage(engine: DockerEngine): Promise<void> {
  const environment = 'ENV PATH=/usr/local/bin:/usr/bin:/bin';
  await engine.docker('import', '--change', environment, await baseImageArchive(), baseImage);
}

/** Builds it under the name `volary`; without a network, so that nothing comes from elsewhere. */
export async function buildVolaryImage(engine: DockerEngine): Promise<void> {
  await engine.docker('build', '--network=none', '-f', 'docker/Dockerfile', '-t', 'volary', '.');
}
