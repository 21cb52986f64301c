import type { ServerName } from './servers.ts';
export const deviations: Readonly<Record<ServerName, Readonly<Record<string, string>>>> = {
  volary: {},
  nbdkit: {},
  'qemu-nbd': {},
};
export const lacks: Readonly<Record<ServerName, readonly string[]>> = {
  volary: [],
  nbdkit: ['lacks extended headers'],
  'qemu-nbd': ['lacks extended headers', 'lacks a second export'],
};
export const choices: Readonly<Record<string, string>> = {};
