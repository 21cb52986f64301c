/**
 * A worker of a gateway: a process that serves the hosts of its share of the volumes. It accepts nothing and knows nothing by
 * itself: connections, and the second information, come from the primary process; when that is gone it ends at once, so that
 * no two gateways of one name serve hosts at the same time.
 */

import { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { WatchMessage } from '../control-protocol/directory-client.ts';
import type { VolumeName } from '../control-protocol/names.ts';
import { assert, ControlError, VolumeError, type VolumeErrorCode } from '../model/errors.ts';
import { ExportRefused } from '../nbd/server.ts';
import { createLogger } from '../runtime/logger.ts';
import { type Channel, Conversation } from './conversation.ts';
import { createDataPlane, type DataPlane } from './data-plane.ts';
import type { Knowledge } from './knowledge.ts';
import { type Information, reduce } from './second-information.ts';
import type { Adoption, Found, Growth, WorkerStart } from './worker-messages.ts';

const FIGURES_EVERY_MS = 200;

const log = createLogger(process.env);
const callbacks = new Set<() => void>();
let information: Information | undefined;
let plane: DataPlane | undefined;

function thePlane(): DataPlane {
  assert(plane !== undefined, 'a worker is started before it is asked');
  return plane;
}

const knowledge: Knowledge = {
  get information() {
    return information;
  },
  onChange: (callback) => {
    callbacks.add(callback);
    return () => callbacks.delete(callback);
  },
  // What it has found has been told before the answer (conversation.ts, 1).
  freshLook: async (name, deadlineMs) => {
    await Promise.race([askInVain('look', name), sleep(deadlineMs)]);
  },
};

const primary: Conversation = new Conversation(process as unknown as Channel, {
  start: ({ connections, reconnectMs }: WorkerStart) => {
    plane = createDataPlane({ knowledge, grow, logIn, connections, reconnectMs, log });
    primary.tell('ready', undefined);
    void reportFigures(plane);
  },
  watched: (message: WatchMessage) => {
    const reduction = reduce(information, undefined, message);
    if (reduction.kind !== 'next') return;
    information = reduction.information;
    for (const callback of [...callbacks]) callback();
  },
  find: async (name: string): Promise<Found> => {
    try {
      const found = await thePlane().exports.find(name);
      if (found === undefined) return { kind: 'none' };
      const { sizeBytes, blockSizes, capabilities } = found.volume;
      return { kind: 'shape', name: found.name, shape: { sizeBytes, blockSizes, capabilities } };
    } catch (error) {
      if (!(error instanceof ExportRefused)) throw error;
      return { kind: 'refused', code: error.code, text: error.message };
    }
  },
  adopt: ({ id, session, rest }: Adoption, socket: unknown) => {
    primary.tell('adopted', id);
    if (!(socket instanceof Socket)) return undefined; // it was closed on its way
    return thePlane().server.adopt({ socket, session, rest: Buffer.from(rest) });
  },
  beat: () => undefined,
  hosts: (name: string) => thePlane().exports.hostsOf(name),
  stop: async () => {
    try {
      await thePlane().stop();
    } catch (error) {
      if (!(error instanceof VolumeError)) throw error;
      throw new ControlError('failed', error.message, { cause: error });
    }
  },
});

async function grow(name: VolumeName, sizeBytes: number): Promise<void> {
  const growth: Growth = { name, sizeBytes };
  try {
    await primary.ask('grow', growth);
  } catch (error) {
    if (!(error instanceof ControlError)) throw error;
    // A VolumeError of the primary's, under its own code.
    throw new VolumeError(error.code as string as VolumeErrorCode, error.message, { cause: error });
  }
}

function logIn(name: VolumeName): Promise<void> {
  return askInVain('log-in', name);
}

/** Something that comes to nothing when the primary process is about to be gone. */
async function askInVain(topic: string, name: VolumeName): Promise<void> {
  try {
    await primary.ask(topic, name);
  } catch (error) {
    if (!(error instanceof ControlError)) throw error;
  }
}

async function reportFigures({ exports }: DataPlane): Promise<void> {
  for (let told: unknown; ; await sleep(FIGURES_EVERY_MS)) {
    const figures = exports.figures();
    if (!isDeepStrictEqual(figures, told)) primary.tell('figures', figures);
    told = figures;
  }
}

/** Ctrl-C on a terminal is sent to all: the primary process sees to its workers. */
function leaveToPrimary(): void {}

process.on('SIGINT', leaveToPrimary);
process.on('SIGTERM', leaveToPrimary);
process.on('disconnect', () => process.exit(0));
