import { importsOf, type Tree } from './tree.ts';

export interface Rule {
  readonly name: string;
  readonly breaches: (tree: Tree) => string[];
  /** Files that, put into the tree, break the rule: one breach each. */
  readonly samples: readonly (readonly [path: string, text: string])[];
}

// --- who may import whom -----------------------------------------------------------------------------------

const ROOMS = {
  cli: 'command',
  gateway: 'role',
  'storage-system': 'role',
  directory: 'role',
  supervisor: 'role',
  replication: 'engine',
  migration: 'engine',
  nbd: 'mechanism',
  'nbd-client': 'mechanism',
  'peer-protocol': 'mechanism',
  storage: 'mechanism',
  'control-protocol': 'mechanism',
  runtime: 'mechanism',
  model: 'vocabulary',
  'nbd-server-protocol': 'vocabulary',
  base: 'ground',
} as const;
type Room = keyof typeof ROOMS;

/** From top to bottom. Rooms of one floor do not import one another. */
const FLOORS = ['command', 'role', 'engine', 'mechanism', 'vocabulary', 'ground'];

function roomOf(path: string): string {
  return /^src\/([^/]+)\//.exec(path)?.[1] ?? '';
}

function floorOf(room: string): number {
  return Object.hasOwn(ROOMS, room) ? FLOORS.indexOf(ROOMS[room as Room]) : -1;
}

const everyRoomHasAPlace: Rule = {
  name: 'every folder of src has a place in these rules, and src has no files of its own',
  breaches: (tree) =>
    [...tree.keys()]
      .filter((path) => path.startsWith('src/') && floorOf(roomOf(path)) < 0)
      .map((path) => `${path} is in no room of the house`),
  samples: [
    ['src/helpers/things.ts', ''],
    ['src/things.ts', ''],
  ],
};

const importsPointDown: Rule = {
  name: 'imports point down: commands, roles, engines, mechanisms, vocabulary, ground',
  breaches: (tree) =>
    importsOf(tree, 'src/').flatMap(({ from, file }) => {
      if (file === undefined || (file === 'package.json' && from === 'src/cli/main.ts')) return [];
      const [here, there] = [roomOf(from), roomOf(file)];
      if (here === there && here !== '') return [];
      if (here === 'nbd-server-protocol') return [`${from} imports ${file}: the package stands alone`];
      if (floorOf(here) < floorOf(there)) return [];
      return [`${from} imports ${file}, which is not below it`];
    }),
  samples: [
    ['src/nbd/a.ts', "import { b } from '../storage/b.ts';"],
    ['src/model/a.ts', "export type { B } from '../cli/b.ts';"],
    ['src/nbd-server-protocol/a.ts', "import { assert } from '../base/assert.ts';"],
    ['src/storage/a.ts', "const later = await import('../../test/b.ts');"],
  ],
};

/** Packages and where they may be used; files are the storage mechanism's, with exceptions that touch no volume. */
const USERS_OF: Record<string, readonly string[]> = {
  koffi: ['src/base/syscalls.ts'],
  yargs: ['src/cli/'],
  pino: ['src/runtime/logger.ts'],
  zod: [
    'src/control-protocol/',
    'src/cli/settings.ts',
    'src/directory/records.ts',
    'src/storage-system/management.ts',
    'src/supervisor/',
  ],
  yaml: ['src/cli/yaml-file.ts'],
  'cli-table3': ['src/cli/table.ts'],
  'eventsource-parser': ['src/control-protocol/http-client.ts'],
  fastify: ['src/runtime/http-server.ts'],
  'fastify-type-provider-zod': ['src/runtime/http-server.ts'],
  '@fastify/swagger': ['src/runtime/http-server.ts'],
  '@prometheus-io/client': [
    'src/runtime/http-server.ts',
    'src/storage-system/metrics.ts',
    'src/directory/metrics.ts',
    'src/gateway/metrics.ts',
  ],
  'lru-cache': ['src/storage-system/open-volumes.ts'],
  '@node-rs/crc32': ['src/peer-protocol/decoder.ts', 'src/peer-protocol/codec.ts'],
  'node:fs': [
    'src/storage/',
    'src/cli/export-files.ts', //    looks into folders
    'src/cli/output.ts', //          writes to stdout and stderr
    'src/cli/yaml-file.ts', //       reads what a person wrote
    'src/runtime/unix-socket.ts', // takes dead sockets away
    'src/runtime/pool-threads.ts', // finds them under /proc
    'src/runtime/nbd-devices.ts', //  finds the kernel's under /sys
  ],
  'node:sqlite': ['src/storage/metadata-store.ts'],
};

/** `@scope/name/file` is of the package `@scope/name`. */
function packageOf(what: string): string {
  return what.split('/', what.startsWith('@') ? 2 : 1).join('/');
}

const packagesHaveTheirPlace: Rule = {
  name: 'a package, node:fs and node:sqlite are used only where these rules say',
  breaches: (tree) =>
    importsOf(tree, 'src/').flatMap(({ from, what, file }) => {
      if (file !== undefined) return [];
      const name = packageOf(what);
      const users = Object.hasOwn(USERS_OF, name) ? USERS_OF[name] : undefined;
      if (users === undefined ? name.startsWith('node:') : users.some((place) => from.startsWith(place))) {
        return [];
      }
      return [`${from} imports ${what}`];
    }),
  samples: [
    ['src/nbd/a.ts', "import koffi from 'koffi';"],
    ['src/nbd/b.ts', "import { open } from 'node:fs/promises';"],
    ['src/base/c.ts', "import lodash from 'lodash';"],
    ['src/directory/d.ts', "import { DatabaseSync } from 'node:sqlite';"],
  ],
};

const placesAreUsed: Rule = {
  name: 'a place that may use a package does so',
  breaches: (tree) =>
    Object.entries(USERS_OF).flatMap(([name, places]) =>
      places
        .filter((place) => !importsOf(tree, place).some(({ what }) => packageOf(what) === name))
        .map((place) => `nothing in ${place} imports ${name}`),
    ),
  samples: [['src/base/syscalls.ts', '']],
};

// --- what is written ---------------------------------------------------------------------------------------

const LINES_MAX = 450;

const filesAreShort: Rule = {
  name: `a TypeScript file has at most ${LINES_MAX} lines`,
  breaches: (tree) =>
    [...tree].flatMap(([path, text]) => {
      const lines = text.split('\n').length - 1;
      return path.endsWith('.ts') && lines > LINES_MAX ? [`${path} has ${lines} lines`] : [];
    }),
  samples: [['src/nbd/a.ts', '\n'.repeat(LINES_MAX + 1)]],
};

/** A rule that a pattern is nowhere in the files whose names match. */
function nowhere(name: string, files: RegExp, pattern: RegExp, samples: Rule['samples']): Rule {
  const breaches = (tree: Tree): string[] =>
    [...tree].flatMap(([path, text]) => {
      if (!files.test(path)) return [];
      const found = text.split('\n').findIndex((line) => pattern.test(line));
      return found < 0 ? [] : [`${path}:${found + 1}: ${text.split('\n')[found]?.trim()}`];
    });
  return { name, breaches, samples };
}

// The patterns and samples are written so that they do not find themselves.
const noUnfinishedWork = nowhere('nothing is left for later', /./, /\b(?:TO[D]O|FIX[M]E|XX[X]|HAC[K])\b/, [
  ['README.md', `TO${'DO'}: write it`],
  ['src/nbd/a.ts', `// FIX${'ME'}`],
]);

const noTypeEscapes = nowhere(
  'the compiler is never told to look away',
  /\.ts$/,
  /\bas an[y]\b(?! \w)|@ts-(?:ignor[e]|nochec[k]|expect-erro[r])/,
  [
    ['src/nbd/a.ts', `const a = b as an${'y'};`],
    ['test/unit/a.ts', `// @ts-ignor${'e'}`],
  ],
);

const noTestIsLeftOut = nowhere(
  'no test is left out, nor runs alone',
  /^test\/.*\.ts$/,
  /\b(?:test|describe|it|suite)(?:\.\w+)*\.(?:onl[y]|ski[p]|tod[o]|skipI[f]|runI[f])\b/,
  [
    ['test/unit/a.test.ts', `test.onl${'y'}('x', () => {});`],
    ['test/unit/b.test.ts', `test.concurrent.ski${'p'}('x', () => {});`],
    ['test/unit/c.test.ts', `describe.skipI${'f'}(process.env.CI)('x', () => {});`],
  ],
);

const noSwallowedErrors = nowhere('no error is swallowed', /\.ts$/, /catch\s*(?:\([^)]*\))?\s*\{\s*\}/, [
  ['src/nbd/a.ts', `try { a(); } catch ${'{}'}`],
]);

// --- the project stands on its own -------------------------------------------------------------------------

// The same wherever the checkout is: `/srv/disk.img` in README is right in a checkout below /srv, too.
const outsides = ['../sha' + 'red', '/ho' + 'me/', '/ro' + 'ot/', '/wo' + 'rk/'];

const standsAlone: Rule = {
  name: 'nothing points outside the checkout',
  breaches: (tree) =>
    [...tree].flatMap(([path, text]) =>
      outsides.filter((outside) => text.includes(outside)).map((outside) => `${path} mentions ${outside}`),
    ),
  samples: [
    ['README.md', `see ../sha${'red'}/notes`],
    ['test/unit/a.test.ts', `const image = '/ho${'me'}/me/disk.img';`],
  ],
};

const readmeKnowsTheScripts: Rule = {
  name: 'README.md mentions only scripts that there are',
  breaches: (tree) => {
    const { scripts } = JSON.parse(tree.get('package.json') ?? '{}') as { scripts: Record<string, string> };
    const mentioned = (tree.get('README.md') ?? '').matchAll(/\bnpm (?:run ([\w:-]+)|(start|test)\b)/g);
    return [...mentioned]
      .map((match) => match[1] ?? match[2] ?? '')
      .filter((script) => !Object.hasOwn(scripts, script))
      .map((script) => `README.md mentions the script ${script}`);
  },
  samples: [['README.md', 'Type `npm run everything`.']],
};

const versionsAreExact: Rule = {
  name: 'dependencies have exact versions',
  breaches: (tree) => {
    const manifest = JSON.parse(tree.get('package.json') ?? '{}') as Record<string, Record<string, string>>;
    return ['dependencies', 'devDependencies', 'optionalDependencies']
      .flatMap((kind) => Object.entries(manifest[kind] ?? {}))
      .filter(([, version]) => !/^\d+\.\d+\.\d+$/.test(version))
      .map(([name, version]) => `${name} ${version}`);
  },
  samples: [['package.json', '{ "dependencies": { "yargs": "^18.0.0" } }']],
};

/** On every Debian machine. */
const ESSENTIAL = new Set(['apt', 'bsdutils', 'coreutils', 'dpkg', 'libc-bin']);

const setupKnowsThePackages: Rule = {
  name: 'bin/setup installs every Debian package that a test may ask for',
  breaches: (tree) => {
    const list = /debian_packages=\(\n([^)]*)\n\)/.exec(tree.get('bin/setup') ?? '')?.[1] ?? '';
    const installed = new Set(list.split('\n').map((line) => line.trim().split(/\s/)[0]));
    return [...tree].flatMap(([path, text]) =>
      [...text.matchAll(/requireTool\(\s*'[^']+',\s*'([^']+)'/g)]
        .flatMap((match) =>
          (match[1] ?? '')
            .replace(/\(.*\)/, '')
            .trim()
            .split(/\s+/),
        )
        .filter((name) => !installed.has(name) && !ESSENTIAL.has(name))
        .map((name) => `${path} needs ${name}`),
    );
  },
  samples: [['test/unit/a.test.ts', `const cowsay = requireTool(${"'cowsay', 'cowsay'"});`]],
};

export const rules: readonly Rule[] = [
  everyRoomHasAPlace,
  importsPointDown,
  packagesHaveTheirPlace,
  placesAreUsed,
  filesAreShort,
  noUnfinishedWork,
  noTypeEscapes,
  noTestIsLeftOut,
  noSwallowedErrors,
  standsAlone,
  readmeKnowsTheScripts,
  versionsAreExact,
  setupKnowsThePackages,
];
