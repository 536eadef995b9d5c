/** What a plugin is given: environment and standard input (CNI specification, section 2). */
import type { PortMapping } from '../../model/sandbox.js';
import type { NetworkConfig, PluginConfig } from './conflist.js';
import type { JsonObject } from './json.js';
import { bad } from './json.js';

export type CniCommand = 'ADD' | 'DEL' | 'CHECK' | 'STATUS' | 'GC' | 'VERSION';

/** Values of capabilities, by name; a plugin gets those that its configuration asks for. */
export type CapabilityArgs = Readonly<Record<string, unknown>>;

export interface InvocationTarget {
  readonly containerId: string;
  /** Empty when there is none any more. */
  readonly netnsPath: string;
  readonly ifName: string;
  /** `KEY=value;KEY=value`, see `formatCniArgs`. */
  readonly cniArgs: string;
}

const containerIdPattern = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$/;

/** The standard input of one plugin of a chain. */
export function pluginInput(
  config: NetworkConfig,
  plugin: PluginConfig,
  capabilityArgs: CapabilityArgs,
  extra: JsonObject = {},
): JsonObject {
  const runtimeConfig = Object.fromEntries(
    Object.entries(capabilityArgs).filter(([name]) => plugin.capabilities.has(name)),
  );
  return {
    ...plugin.raw,
    name: config.name,
    cniVersion: config.cniVersion,
    ...(Object.keys(runtimeConfig).length === 0 ? {} : { runtimeConfig }),
    ...extra,
  };
}

/** The variables of a call that concerns one container. @throws HerkosError `InvalidArgument` */
export function pluginEnv(
  command: CniCommand,
  target: InvocationTarget,
  binDirs: readonly string[],
): Record<string, string> {
  if (!containerIdPattern.test(target.containerId))
    throw bad(`'${target.containerId}' cannot be a CNI container id`);
  return {
    CNI_COMMAND: command,
    CNI_CONTAINERID: target.containerId,
    CNI_NETNS: target.netnsPath,
    CNI_IFNAME: target.ifName,
    CNI_ARGS: target.cniArgs,
    CNI_PATH: binDirs.join(':'),
  };
}

/** Joins arguments in the form of CNI_ARGS, which has no way to quote. @throws HerkosError `InvalidArgument` */
export function formatCniArgs(args: Readonly<Record<string, string>>): string {
  return Object.entries(args)
    .map(([key, value]) => {
      if (/[;=\u0000-\u001f]/.test(value))
        throw bad(
          `${key} '${value}' cannot be given to a CNI plugin: it holds ';', '=' or a control character`,
        );
      return `${key}=${value}`;
    })
    .join(';');
}

/** The `portMappings` capability: published ports alone. */
export function portMappingsCapability(mappings: readonly PortMapping[]): JsonObject[] {
  return mappings
    .filter((mapping) => mapping.hostPort > 0)
    .map((mapping) => ({
      hostPort: mapping.hostPort,
      containerPort: mapping.containerPort,
      protocol: mapping.protocol.toLowerCase(),
      ...(mapping.hostIp === '' ? {} : { hostIP: mapping.hostIp }),
    }));
}
