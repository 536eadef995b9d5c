/** What the tests of hostile guests share. */
import type { ServerDuplexStream, ServerWritableStream, sendUnaryData } from '@grpc/grpc-js';

import { background } from '../../../../lib/base/context.js';
import { MIB } from '../../../../lib/base/units.js';
import { AgentConnector } from '../../../../lib/drivers/guest/connector.js';
import type { Guest } from '../../../../lib/pod/ports.js';
import { FakeAgent } from '../../../fakes/guest-agent.js';
import type { AgentOverrides } from '../../../fakes/guest-agent.js';
import { testMachineId } from '../../../tools/machine-id.js';

export const forever = background();
/** How much this process may grow while a guest sends without end. */
export const growthBytesMax = 24 * MIB;

export type Callback<Answer> = sendUnaryData<Answer>;
export type Writer<Answer> = ServerWritableStream<unknown, Answer>;
export type TwoWay<Answer> = ServerDuplexStream<unknown, Answer>;

export function answer<Answer>(message: Answer) {
  return (_call: unknown, callback: Callback<Answer>): void => {
    callback(null, message);
  };
}

/** Never answers. */
export function silent(): void {
  // On purpose.
}

/** Things a test made, undone after it in reverse. */
export class Undone {
  readonly #steps: (() => Promise<void>)[] = [];

  push(step: () => Promise<void>): void {
    this.#steps.push(step);
  }

  async all(): Promise<void> {
    for (const step of this.#steps.splice(0).reverse()) await step();
  }

  /** A connection to an agent that does what `overrides` say, and the right thing otherwise. */
  async connected(overrides: AgentOverrides): Promise<Guest> {
    const fake = await FakeAgent.listen(overrides);
    this.push(() => fake.close());
    const guest = await new AgentConnector().connect(forever, fake.socketPath, testMachineId);
    this.push(() => guest.close());
    return guest;
  }
}
