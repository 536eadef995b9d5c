/** Running a whole plugin chain: ADD forwards, DEL backwards (CNI specification, section 3). */
import type { Context } from '../../base/context.js';
import type { HerkosError } from '../../base/errors.js';
import { messageOf, wrap } from '../../base/errors.js';
import type { NetworkConfig } from '../../wire/cni/conflist.js';
import type { CapabilityArgs, InvocationTarget } from '../../wire/cni/invocation.js';
import { pluginInput } from '../../wire/cni/invocation.js';
import type { JsonObject } from '../../wire/cni/json.js';
import { parseResult } from '../../wire/cni/result.js';
import type { PluginRunner } from './plugin-runner.js';

export interface ChainCall {
  readonly config: NetworkConfig;
  readonly capabilityArgs: CapabilityArgs;
  readonly target: InvocationTarget;
}

/** Adds and returns the last plugin's result, unchanged. What a failed ADD left behind is the caller's to DEL. */
export async function addChain(ctx: Context, runner: PluginRunner, call: ChainCall): Promise<JsonObject> {
  let previous: JsonObject | undefined;
  for (const plugin of call.config.plugins) {
    const input = pluginInput(call.config, plugin, call.capabilityArgs, chained(previous));
    const text = await runner.run(ctx, 'ADD', plugin.type, call.target, input);
    previous = parseResult(text, `the result of CNI plugin ${plugin.type}`).raw;
  }
  return previous ?? {};
}

/**
 * Deletes with every plugin, last first. One that fails does not keep the others from giving back
 * what they hold; the first error, with the others named in it, is thrown at the end.
 */
export async function deleteChain(
  ctx: Context,
  runner: PluginRunner,
  call: ChainCall,
  result: JsonObject | undefined,
): Promise<void> {
  const errors: unknown[] = [];
  for (const plugin of [...call.config.plugins].reverse()) {
    const input = pluginInput(call.config, plugin, call.capabilityArgs, chained(result));
    try {
      await runner.run(ctx, 'DEL', plugin.type, call.target, input);
    } catch (error) {
      errors.push(error);
    }
  }
  if (errors.length > 0) throw together(errors);
}

function chained(previous: JsonObject | undefined): JsonObject {
  return previous === undefined ? {} : { prevResult: previous };
}

function together([first, ...others]: readonly unknown[]): HerkosError {
  const also = others.map((error) => `; also ${messageOf(error)}`).join('');
  return wrap(first, `cannot give the network back${also}`);
}
