/**
 * What volary does where the protocol document leaves a choice: every case with more than one permitted
 * observation is here, so that a choice never changes unnoticed.
 */
import type { HeaderStyle } from '../../src/nbd-server-protocol/constants.ts';
import { allStyles, chunkStyles } from './lab.ts';

/** One observation, or those between which it depends on what other clients do. */
export type Choice = string | readonly string[];
type Choices = Readonly<Record<string, Choice>>;

/** The same choices under several beginnings of case names. */
function under(beginnings: readonly string[], choices: Choices): Choices {
  const rows = beginnings.flatMap((beginning) =>
    Object.entries(choices).map(([name, seen]) => [`${beginning}${name}`, seen]),
  );
  return Object.fromEntries(rows) as Choices;
}

const compactStyles: readonly HeaderStyle[] = ['simple', 'structured'];

const handshake: Choices = {
  'without FIXED_NEWSTYLE: GO': 'closed',
  'without FIXED_NEWSTYLE: LIST': 'closed',
  'without FIXED_NEWSTYLE: STARTTLS': 'closed',
  'STARTTLS in the clear': 'ERR_POLICY',
  'STARTTLS with data': 'ERR_INVALID',
  'unknown option with 8192 bytes': 'ERR_UNSUP',
  'unknown option with 131072 bytes': 'ERR_UNSUP',
  'STRUCTURED_REPLY twice': 'ACK, ERR_INVALID: structured replies',
  'EXTENDED_HEADERS twice': 'ERR_INVALID',
  'EXPORT_NAME: the default export': 'exported',
  'INFO: 65535 times the same information': 'ERR_TOO_BIG',
  'LIST_META_CONTEXT: before structured replies': 'ERR_INVALID',
  'selection: kept when EXTENDED_HEADERS follows': 'ok',
  ...under(
    [
      'an unknown option',
      'LIST',
      'ABORT',
      'STARTTLS',
      'INFO',
      'GO',
      'EXPORT_NAME',
      'SET_META_CONTEXT',
      'STRUCTURED_REPLY',
    ],
    { ' that claims 4 GiB of data': 'closed, memory bounded' },
  ),
};

const infoAndGo = under(['INFO: ', 'GO: '], {
  'a name that is not UTF-8': 'ERR_INVALID',
  'a name that ends in half a character': 'ERR_INVALID',
  'a surrogate in UTF-8': 'ERR_INVALID',
  'a name with NUL behind': 'ERR_INVALID',
  'a name with NUL within': 'ERR_INVALID',
  'a name of one NUL': 'ERR_INVALID',
  'a name of 4097 bytes': 'ERR_INVALID',
  'a name of 30000 bytes': 'ERR_INVALID',
  'no information requests': 'ACK: EXPORT',
  'EXPORT asked for': 'ACK: EXPORT',
  'NAME asked for': 'ACK: EXPORT NAME',
  'DESCRIPTION asked for': 'ACK: EXPORT',
  'BLOCK_SIZE asked for': 'ACK: EXPORT BLOCK_SIZE',
  'everything asked for': 'ACK: EXPORT NAME BLOCK_SIZE',
  'unknown information': 'ACK: EXPORT',
  'information asked for twice': 'ERR_INVALID',
  '1000 unknown information requests': 'ACK: EXPORT',
  '65000 unknown information requests': 'ERR_TOO_BIG',
  'the empty name is the default export': 'ACK',
});

const metaContexts = under(['LIST_META_CONTEXT: ', 'SET_META_CONTEXT: '], {
  '500 queries': 'base:allocation',
  'a query without colon': 'ERR_INVALID',
  'an empty query': 'ERR_INVALID',
  'a query without namespace': 'ERR_INVALID',
  'a query that is not UTF-8': 'ERR_INVALID',
  'a query with NUL': 'ERR_INVALID',
  'a query of 4096 bytes': 'none',
  'a query of 5000 bytes': 'ERR_INVALID',
  'an export name that is not UTF-8': 'ERR_INVALID',
  'an export name of 5000 bytes': 'ERR_INVALID',
  '2^32 - 1 queries announced': 'ERR_INVALID',
});

const transmission = under(allStyles, {
  ': READ: length 0 in the midst': 'ok',
  ': READ: length 0 at the end': 'ok',
  ': READ: length 0 beyond the end': 'EINVAL',
  ': CACHE: length 0': 'ok',
  ': CACHE: 1 GiB': 'ok',
  ': WRITE: announces 2^32 - 1 bytes': 'closed, memory bounded',
  ': WRITE_ZEROES with FAST_ZERO': 'ok, zeroes',
  ': WRITE_ZEROES with FAST_ZERO and NO_HOLE': 'ok, zeroes',
  ': WRITE_ZEROES: length 0': 'ok',
  ': WRITE_ZEROES: 2^32 - 512 bytes': 'ok',
  ': TRIM: length 0': 'ok',
  ': TRIM: 2^32 - 512 bytes': 'ok',
  ': FLUSH with an offset': 'EINVAL',
  ': FLUSH with a length': 'EINVAL',
  ': FLUSH with an offset and a length beyond the end': 'EINVAL',
  ', read-only: FLUSH': 'ok',
  ': RESIZE to less, while another client is connected': 'EPERM: ok ok ok: ok',
  ': RESIZE to 2^63': 'EINVAL',
  ': RESIZE to 2^64 - 1': 'EINVAL',
  ': RESIZE to 2^53 + 4096': 'EINVAL',
  ', read-only: RESIZE': 'EPERM',
  // When another client has changed the export since, requests of one that has closed its half are dropped (N4).
  ': a client that closes its half behind its requests': ['all answered, closed', 'closed'],
});

const simple = under(['simple'], {
  ': READ: more than the maximum payload': 'EINVAL',
  ': READ: 2^32 - 1 bytes': 'EINVAL',
});

const compact = under(compactStyles, {
  ': WRITE: length 0': 'ok',
  ': WRITE: length 0 at the end': 'ok',
  ': WRITE: 512 bytes more than the maximum payload': 'EINVAL',
  ', read-only: WRITE of nothing': 'EPERM',
});

const chunked = under(chunkStyles, {
  ': READ: more than the maximum payload': 'EOVERFLOW',
  ': READ: 2^32 - 1 bytes': 'EOVERFLOW',
  ': READ: a hole comes as': 'hole chunks',
  ': READ: data, hole and data come as': 'data and hole chunks',
  ': READ with DF: 1 MiB of data and hole': 'one chunk, right data',
  ': READ: an error out of bounds': 'EINVAL with text',
  ': BLOCK_STATUS: a hole': 'hole',
  ': BLOCK_STATUS: data, hole, data': 'data hole data',
  ': BLOCK_STATUS with REQ_ONE: one byte of a hole': 'hole 1',
  ': BLOCK_STATUS: length 0': 'EINVAL',
  ': BLOCK_STATUS: trimmed data': 'hole',
  ', read-only: BLOCK_STATUS': 'data hole',
});

const extended = under(['extended'], {
  ': READ: 5 GiB': 'EOVERFLOW',
  ': CACHE: 5 GiB': 'ok',
  ': WRITE: length 0': 'EINVAL',
  ': WRITE: length 0 at the end': 'EINVAL',
  ': WRITE: 512 bytes more than the maximum payload': 'closed',
  ': WRITE_ZEROES: 4.5 GiB': 'ok',
  ': TRIM: 4.5 GiB': 'ok',
  ', read-only: WRITE of nothing': 'EINVAL',
  ': BLOCK_STATUS with payload: no context': 'EINVAL',
  ': BLOCK_STATUS with payload: an effect length of 0': 'EINVAL',
});

export const choices: Choices = {
  ...handshake,
  ...infoAndGo,
  ...metaContexts,
  ...transmission,
  ...simple,
  ...compact,
  ...chunked,
  ...extended,
};
