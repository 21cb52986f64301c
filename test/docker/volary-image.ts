/** The image that docker/Dockerfile makes, in a test's engine. */

import { baseImageArchive } from '../support/docker-base.ts';
import type { DockerEngine } from '../support/docker-engine.ts';

/** The Dockerfile's own default. */
export const baseImage = 'node:24-bookworm-slim';

/** Builds it as README tells a user to, under the name `volary`; without a network, so that all it needs is named. */
export async function buildVolaryImage(engine: DockerEngine): Promise<void> {
  const environment = 'ENV PATH=/usr/local/bin:/usr/bin:/bin';
  await engine.docker('import', '--change', environment, await baseImageArchive(), baseImage);
  await engine.docker('build', '--network=none', '-f', 'docker/Dockerfile', '-t', 'volary', '.');
}
