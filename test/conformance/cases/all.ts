/** Every conformance case, in the order in which a connection lives. */
import type { Case } from '../lab.ts';
import { exportCases } from './exports.ts';
import { commandCases } from './flags.ts';
import { greedCases } from './greed.ts';
import { greetingCases } from './greeting.ts';
import { metaCases } from './meta.ts';
import { optionCases } from './options.ts';
import { readCases } from './reads.ts';
import { resizeCases } from './resize.ts';
import { statusCases } from './status.ts';
import { trafficCases } from './traffic.ts';
import { writeCases } from './writes.ts';

export const cases: readonly Case[] = [
  ...greetingCases,
  ...optionCases,
  ...exportCases,
  ...metaCases,
  ...readCases,
  ...writeCases,
  ...statusCases,
  ...commandCases,
  ...resizeCases,
  ...trafficCases,
  ...greedCases,
];
