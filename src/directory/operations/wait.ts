import type { OperationRecord } from '../../control-protocol/catalog.ts';
import { WAIT_MS_MAX } from '../../control-protocol/directory-routes.ts';
import { ControlError } from '../../model/errors.ts';
import type { Catalog } from '../catalog.ts';

/** The operation, when it has finished or the time is over. @throws ControlError not-found */
export async function finishedOperation(
  catalog: Catalog,
  id: string,
  waitMs: number,
): Promise<OperationRecord> {
  const find = (): OperationRecord => {
    const operation = catalog.view.operations.get(id);
    if (operation === undefined) throw new ControlError('not-found', `there is no operation ${id}`);
    return operation;
  };
  if (find().finishedAt !== null || waitMs === 0) return find();
  await new Promise<void>((resolve) => {
    const stopListening = catalog.onCommit(() => {
      if (catalog.view.operations.get(id)?.finishedAt === null) return;
      settle();
    });
    const timer = setTimeout(() => settle(), Math.min(waitMs, WAIT_MS_MAX)).unref();
    const settle = (): void => {
      stopListening();
      clearTimeout(timer);
      resolve();
    };
  });
  return find();
}
