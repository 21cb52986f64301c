/** Interfaces: where hosts are attached, and which sites are near. */

import type { InterfaceRecord } from '../control-protocol/catalog.ts';
import type { SetInterface } from '../control-protocol/directory-api.ts';
import type { InterfaceName } from '../control-protocol/names.ts';
import { ControlError } from '../model/errors.ts';
import type { Catalog } from './catalog.ts';
import type { CatalogView } from './catalog-view.ts';

const INTERFACES_MAX = 10_000;

export function interfaceRecords(view: CatalogView): InterfaceRecord[] {
  return [...view.interfaces.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** @throws ControlError not-found */
export function interfaceAsked(view: CatalogView, name: InterfaceName): InterfaceRecord {
  const record = view.interfaces.get(name);
  if (record !== undefined) return record;
  const text = `there is no interface ${name}: say where it is with volary interface set ${name} --site SITE`;
  throw new ControlError('not-found', text);
}

/** @throws ControlError bad-request, not-found, unavailable */
export async function setInterface(
  catalog: Catalog,
  name: InterfaceName,
  { sites }: SetInterface,
): Promise<InterfaceRecord> {
  const twice = sites.find((site, at) => sites.indexOf(site) !== at);
  if (twice !== undefined)
    throw new ControlError('bad-request', `site ${twice} is named twice: name it once`);
  return catalog.change((draft) => {
    const { view } = draft;
    const known = new Set([...view.storage.values(), ...view.gateways.values()].map(({ site }) => site));
    const unknown = sites.find((site) => !known.has(site));
    if (unknown !== undefined) {
      const text = `there is no site ${unknown}: storage systems and gateways are in ${[...known].sort().join(', ') || 'none yet'}`;
      throw new ControlError('not-found', text);
    }
    if (!view.interfaces.has(name) && view.interfaces.size >= INTERFACES_MAX) {
      throw new ControlError('unavailable', `a cluster has at most ${INTERFACES_MAX} interfaces`);
    }
    const record = { name, sites };
    draft.putInterface(record);
    return record;
  });
}

/** One that is not there is gone already. */
export async function removeInterface(catalog: Catalog, name: InterfaceName): Promise<void> {
  await catalog.change((draft) => {
    if (draft.view.interfaces.has(name)) draft.removeInterface(name);
  });
}
