/**
 * Where nbdkit 1.32 and qemu-nbd 7.2 differ from the protocol document, exactly, each under the heading that it
 * differs from; what they lack; and how volary differs: not at all. A deviation that is gone fails a test as well.
 */
import type { ServerName } from './servers.ts';

export interface DeviationGroup {
  /** The heading of the document: that of the case. */
  readonly section: string;
  /** Case to observation. */
  readonly does: Readonly<Record<string, string>>;
}

/** Cases in both styles that these two servers speak. */
function bothStyles(does: string, names: readonly string[]): Record<string, string> {
  const rows = names.flatMap((name) => ['simple', 'structured'].map((style) => [`${style}${name}`, does]));
  return Object.fromEntries(rows) as Record<string, string>;
}

function forBothOptions(does: string, names: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    names.flatMap((name) => ['INFO', 'GO'].map((option) => [`${option}: ${name}`, does])),
  );
}

const beyondTheEnd = [
  'one byte beyond the end',
  'half beyond the end',
  'the last byte and one more',
  'far beyond the end',
  'an offset of 2^53 + 512',
  'an offset of 2^63',
  'an offset of 2^64 - 512, up to the very end',
  'an offset of 2^64 - 256, around to 256',
  'an offset of 2^64 - 1',
];

const nbdkit: readonly DeviationGroup[] = [
  {
    section: 'Option types: NBD_OPT_LIST',
    does: { 'LIST gives the same again': 'something else, ERR_INVALID' },
  },
  {
    // It takes no notice of the export name, of repeated queries, or of data behind the last query.
    section: 'Option types: NBD_OPT_LIST_META_CONTEXT',
    does: {
      'LIST_META_CONTEXT: the same context twice': 'a context twice',
      'LIST_META_CONTEXT: an unknown export': 'base:allocation',
      'LIST_META_CONTEXT: an export name that is not UTF-8': 'base:allocation',
      'LIST_META_CONTEXT: fewer queries announced than sent': 'base:allocation',
      'LIST_META_CONTEXT: no queries announced, one sent': 'base:allocation',
      'LIST_META_CONTEXT: a byte behind the last query': 'base:allocation',
    },
  },
  {
    section: 'Option types: NBD_OPT_SET_META_CONTEXT',
    does: {
      'SET_META_CONTEXT: the same context twice': 'a context twice',
      'SET_META_CONTEXT: an unknown export': 'base:allocation',
      'SET_META_CONTEXT: an export name that is not UTF-8': 'base:allocation',
      'SET_META_CONTEXT: fewer queries announced than sent': 'base:allocation',
      'SET_META_CONTEXT: no queries announced, one sent': 'none',
      'SET_META_CONTEXT: a byte behind the last query': 'base:allocation',
      'selection, structured: a failed SET clears what was selected': 'ok',
    },
  },
  {
    section: 'Size constraints',
    does: bothStyles('ENOMEM', [': READ: 2^32 - 1 bytes']),
  },
  {
    // An assertion about FAST_ZERO, which this export does not advertise, ends the process.
    section: 'Command flags',
    does: bothStyles('takes FUA NO_HOLE; else FAST_ZERO closed; the server died', [
      ': every flag on WRITE_ZEROES',
    ]),
  },
  {
    // A request's payload has its memory before it has come.
    section: 'N5: bounded memory, others unharmed',
    does: {
      'structured: 20 clients in the midst of a write of 32 MiB': 'others served, memory not bounded',
    },
  },
];

const qemuNbd: readonly DeviationGroup[] = [
  {
    // Its error texts quote the name as it came.
    section: 'Conventions: strings',
    does: forBothOptions('violation: an option error is not UTF-8', [
      'a name that is not UTF-8',
      'a name that ends in half a character',
      'a surrogate in UTF-8',
    ]),
  },
  {
    section: 'Option types: NBD_OPT_EXPORT_NAME',
    does: {
      'EXPORT_NAME: a name with NUL behind': 'exported',
      'EXPORT_NAME: a name with NUL within': 'exported',
    },
  },
  {
    section: 'Option types: NBD_OPT_LIST_META_CONTEXT',
    does: {
      'LIST_META_CONTEXT: an export name that is not UTF-8': 'violation: an option error is not UTF-8',
      'LIST_META_CONTEXT: 4 bytes of data': 'ERR_UNKNOWN',
      'LIST_META_CONTEXT: 7 bytes of data': 'ERR_UNKNOWN',
      'LIST_META_CONTEXT: fewer queries announced than sent': 'base:allocation, then closed',
      'LIST_META_CONTEXT: no queries announced, one sent': 'base:allocation, then closed',
      'LIST_META_CONTEXT: a byte behind the last query': 'base:allocation, then closed',
    },
  },
  {
    section: 'Option types: NBD_OPT_SET_META_CONTEXT',
    does: {
      'SET_META_CONTEXT: an export name that is not UTF-8': 'violation: an option error is not UTF-8',
      'SET_META_CONTEXT: 4 bytes of data': 'ERR_UNKNOWN',
      'SET_META_CONTEXT: 7 bytes of data': 'ERR_UNKNOWN',
      'SET_META_CONTEXT: fewer queries announced than sent': 'base:allocation, then closed',
      'SET_META_CONTEXT: no queries announced, one sent': 'none, then closed',
      'SET_META_CONTEXT: a byte behind the last query': 'base:allocation, then closed',
    },
  },
  {
    // Whatever a check refuses is EINVAL here.
    section: 'Error values',
    does: {
      ...bothStyles(
        'EINVAL',
        beyondTheEnd.map((name) => `: WRITE: ${name}`),
      ),
      ...bothStyles('EINVAL, right data', [': WRITE: half beyond the end changes nothing']),
      ...bothStyles('EINVAL', [', read-only: WRITE', ', read-only: WRITE of 1 MiB', ', read-only: TRIM']),
    },
  },
  {
    section: 'Request types: NBD_CMD_WRITE_ZEROES',
    does: {
      ...bothStyles(
        'EINVAL',
        beyondTheEnd.map((name) => `: WRITE_ZEROES: ${name}`),
      ),
      ...bothStyles('EINVAL', [', read-only: WRITE_ZEROES']),
    },
  },
  {
    // It goes on behind a header that is none.
    section: 'Terminating the transmission phase',
    does: bothStyles('EINVAL', [
      ': request magic zero',
      ': request magic one bit off',
      ': request magic of the other header size',
      ': request magic of a reply',
      ': request magic of the past',
    ]),
  },
  {
    section: 'Request types: NBD_CMD_DISC',
    does: bothStyles('closed', [': DISC behind writes: they are answered first']),
  },
];

export const deviations: Readonly<Record<ServerName, readonly DeviationGroup[]>> = {
  volary: [],
  nbdkit,
  'qemu-nbd': qemuNbd,
};

/** Features that cases need and a server, as it is started here, does not have. */
export const lacks: Readonly<Record<ServerName, readonly string[]>> = {
  volary: ['lacks a reason to refuse RESIZE'],
  nbdkit: [
    'lacks a default export',
    'lacks a second disk',
    'lacks extended headers',
    'lacks SEND_FAST_ZERO',
    'lacks SEND_RESIZE',
  ],
  'qemu-nbd': [
    'lacks a default export',
    'lacks a second disk',
    'lacks a second export',
    'lacks extended headers',
    'lacks SEND_RESIZE',
  ],
};

/**
 * Cases that a server does not always survive. nbdkit ends in an assertion (a reply for a socket that another of its
 * threads has just closed) when a client with many requests under way resets its connection: a race.
 */
export const sometimesFatal: Readonly<Partial<Record<ServerName, RegExp>>> = {
  nbdkit: /leave|does not read its answers|in the midst/,
};

/**
 * What a server does only now and then, by case. nbdkit's threads may see DISC before one of them has answered the
 * last request in front of it.
 */
export const sometimes: Readonly<
  Partial<Record<ServerName, { readonly name: RegExp; readonly seen: RegExp }>>
> = {
  nbdkit: { name: /DISC behind writes: they are answered first/, seen: /^\d+ ok, / },
};
