/** Ends of containers as the guest tells them. */
import { herkos } from '#gen/agent/v1/api.js';
import { nowUnixNano } from '../../model/time.js';
import type { GuestContainerState, GuestExit } from '../../pod/ports.js';
import { checkedId, checkedNumber, misbehaved } from './check.js';
import { containersMax, exitCodeMax, exitsRememberedMax, exitsRepeatedMax } from './limits.js';

type ExitMessage = herkos.agent.v1.ContainerExit.$Properties;
const { Phase } = herkos.agent.v1.ContainerState;

export function checkedExit(message: ExitMessage): GuestExit {
  return {
    containerId: checkedId(message.containerId ?? '', 'a container'),
    exitCode: checkedNumber(message.exitCode ?? 0, 'an exit code', exitCodeMax),
    oomKilled: message.oomKilled ?? false,
    finishedAt: boundedTime(message.finishedAtUnixNano?.toString() ?? '0'),
  };
}

/** The guest's clock is the guest's word: not before 1970, and nothing has ended in the future. */
function boundedTime(guestNano: string): string {
  const now = BigInt(nowUnixNano());
  const said = BigInt(guestNano);
  if (said <= 0n) return '0';
  return (said < now ? said : now).toString();
}

export function checkedStates(
  messages: readonly herkos.agent.v1.ContainerState.$Properties[],
): GuestContainerState[] {
  if (messages.length > containersMax) throw misbehaved(`listed ${String(messages.length)} containers`);
  const seen = new Set<string>();
  return messages.map((message) => {
    const state = checkedState(message);
    if (seen.has(state.containerId)) throw misbehaved(`listed the container ${state.containerId} twice`);
    seen.add(state.containerId);
    return state;
  });
}

function checkedState(message: herkos.agent.v1.ContainerState.$Properties): GuestContainerState {
  const containerId = checkedId(message.containerId ?? '', 'a container');
  switch (message.phase) {
    case Phase.PHASE_CREATED:
      return { containerId, phase: 'created' };
    case Phase.PHASE_RUNNING:
      return { containerId, phase: 'running' };
    case Phase.PHASE_EXITED: {
      if (message.exit === undefined || message.exit === null)
        throw misbehaved(`said that ${containerId} has ended, but not how`);
      // Inside a state the id may be left out.
      const told = message.exit.containerId ?? '';
      const exit = checkedExit({ ...message.exit, containerId: told === '' ? containerId : told });
      if (exit.containerId !== containerId)
        throw misbehaved(`told the end of ${exit.containerId} in the place of ${containerId}`);
      return { containerId, phase: 'exited', exit };
    }
    default:
      throw misbehaved(`said that ${containerId} is in phase ${String(message.phase)}`);
  }
}

/**
 * Which ends were told already, on one connection. A container ends once: more is repetition, which is
 * passed over, and a flood, which ends the stream.
 */
export class ExitBook {
  readonly #told = new Set<string>();
  #repeated = 0;

  /** At the start of a stream, which tells all past ends again. */
  begin(): void {
    this.#told.clear();
    this.#repeated = 0;
  }

  /** True for an end that is news. @throws GUEST_MISBEHAVED for a flood */
  isNew({ containerId }: GuestExit): boolean {
    if (this.#told.has(containerId)) {
      this.#repeated += 1;
      if (this.#repeated > exitsRepeatedMax)
        throw misbehaved(`told the same ends more than ${String(exitsRepeatedMax)} times`);
      return false;
    }
    if (this.#told.size >= exitsRememberedMax)
      throw misbehaved(`told the ends of more than ${String(exitsRememberedMax)} containers`);
    this.#told.add(containerId);
    return true;
  }

  /** The host has removed the container. */
  forget(containerId: string): void {
    this.#told.delete(containerId);
  }
}
