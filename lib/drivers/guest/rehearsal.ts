import type { Context } from '../../base/context.js';
import type { Rehearsal } from '../../vm/ports.js';
import { AgentConnector } from './connector.js';

/** A machine that is nobody's yet. */
const noMachineId = '';

export class AgentRehearsal implements Rehearsal {
  readonly #connector = new AgentConnector();

  async rehearse(ctx: Context, agentSocketPath: string, nicMac?: string): Promise<void> {
    const guest = await this.#connector.connect(ctx, agentSocketPath, noMachineId);
    try {
      await guest.rehearse(ctx, nicMac);
    } finally {
      await guest.close();
    }
  }
}
