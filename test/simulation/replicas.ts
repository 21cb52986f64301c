import type { MemberId } from '../../src/peer-protocol/messages.ts';
import type { Effect, Event, Output } from '../../src/replication/effects.ts';
import type { ReplicaLike } from './member-process.ts';

export function makeReplica(id: MemberId): ReplicaLike {
  const asked = new Map<number, number>();
  let last = 0;
  let busy = false;
  const queue: Event[] = [];
  let epoch = 0;
  return {
    servesNow: () => true,
    step(event: Event): Output {
      const effects: Effect[] = [];
      switch (event.kind) {
        case 'start':
          if (event.durable?.role === 'primary')
            effects.push({ kind: 'serve', epoch: event.durable.epoch, hosts: 'here' });
          break;
        case 'configure': {
          epoch = event.config.epoch;
          const role = event.config.primary === id ? 'primary' : 'secondary';
          effects.push({ kind: 'configured', token: event.token, epoch, isRefused: false });
          effects.push({ kind: 'serve', epoch, hosts: role === 'primary' ? 'here' : 'refuse' });
          return {
            persist: { config: event.config, epoch, role, mayBeInStep: [], lacksAll: [], isEqual: false },
            effects,
          };
        }
        case 'request':
          if (event.request.kind === 'read') effects.push({ kind: 'admit', token: event.token });
          else if (busy) queue.push(event);
          else {
            busy = true;
            asked.set(++last, event.token);
            effects.push({ kind: 'apply', token: last, operation: event.request, isJournaled: true });
          }
          break;
        case 'applied':
          effects.push({ kind: 'answer', token: asked.get(event.token) ?? 0, error: undefined });
          {
            const next = queue.shift();
            busy = next !== undefined;
            if (next?.kind === 'request' && next.request.kind !== 'read') {
              asked.set(++last, next.token);
              effects.push({ kind: 'apply', token: last, operation: next.request, isJournaled: true });
            }
          }
          break;
        default:
      }
      return { persist: undefined, effects };
    },
  };
}
