/** From the options of `herkosctl run` to the messages of CRI. */
import { randomBytes, randomUUID } from 'node:crypto';
import { join } from 'node:path';

import Long from 'long';

import { HerkosError } from '../../lib/base/errors.js';
import { parseBytes } from '../../lib/base/units.js';
import { v1 } from '../../lib/cri/api.js';

export interface RunOptions {
  readonly name?: string;
  readonly rm?: boolean;
  readonly detach?: boolean;
  readonly pull: 'always' | 'missing' | 'never';
  readonly creds?: string;
  readonly quiet?: boolean;
  readonly env: readonly string[];
  readonly publish: readonly string[];
  readonly memory?: string;
  readonly cpus?: number;
  readonly user?: string;
  readonly workdir?: string;
  readonly runtimeHandler: string;
  readonly logDir: string;
}

export const namespace = 'herkosctl';
const containerName = 'main';
const cpuPeriodUs = 100_000;
const protocols: Readonly<Record<string, v1.Protocol>> = {
  tcp: v1.Protocol.TCP,
  udp: v1.Protocol.UDP,
  sctp: v1.Protocol.SCTP,
};

export interface RunPlan {
  readonly name: string;
  readonly sandbox: v1.PodSandboxConfig.$Properties;
  readonly container: v1.ContainerConfig.$Properties;
}

/** @throws InvalidArgument that names the option */
export function planRun(image: string, args: readonly string[], options: RunOptions): RunPlan {
  const name = options.name ?? generatedName(image);
  const uid = randomUUID();
  const limits = resources(options);
  const labels = {
    'io.kubernetes.pod.name': name,
    'io.kubernetes.pod.namespace': namespace,
    'io.kubernetes.pod.uid': uid,
  };
  const namespaceOptions = { pid: v1.NamespaceMode.CONTAINER };
  return {
    name,
    sandbox: {
      metadata: { name, namespace, uid, attempt: 0 },
      hostname: name.slice(0, 63),
      logDirectory: join(options.logDir, `${namespace}_${name}_${uid}`),
      portMappings: options.publish.map(portMapping),
      labels,
      linux: { securityContext: { namespaceOptions }, resources: limits },
    },
    container: {
      metadata: { name: containerName, attempt: 0 },
      image: { image, userSpecifiedImage: image },
      // What follows the image replaces its command and keeps its entry point, as other tools do it.
      args: [...args],
      workingDir: options.workdir ?? '',
      envs: options.env.map(variable),
      labels: { ...labels, 'io.kubernetes.container.name': containerName },
      logPath: `${containerName}/0.log`,
      linux: {
        resources: limits,
        securityContext: {
          namespaceOptions,
          seccomp: { profileType: v1.SecurityProfile.ProfileType.RuntimeDefault },
          ...user(options.user),
        },
      },
    },
  };
}

/** `busybox-1a2b3`: the last part of the image's name, and something to tell pods apart. */
function generatedName(image: string): string {
  const last = image.split('@')[0]?.split('/').at(-1)?.split(':')[0] ?? '';
  const base = last.replaceAll(/[^A-Za-z0-9-]/g, '-').replaceAll(/^-+|-+$/g, '');
  return `${base === '' ? 'pod' : base.slice(0, 40)}-${randomBytes(3).toString('hex')}`.toLowerCase();
}

function variable(text: string): v1.KeyValue.$Properties {
  const equals = text.indexOf('=');
  // A name alone passes the caller's own value on.
  const key = equals === -1 ? text : text.slice(0, equals);
  const value = equals === -1 ? (process.env[text] ?? '') : text.slice(equals + 1);
  return { key, value: Buffer.from(value) };
}

/** `[ip:]host:container[/protocol]`; an IPv6 address stands in brackets. */
function portMapping(text: string): v1.PortMapping.$Properties {
  const match = /^(?:(\[[0-9a-fA-F:.]+\]|[0-9.]+):)?(\d{1,5}):(\d{1,5})(?:\/(tcp|udp|sctp))?$/.exec(text);
  if (match === null)
    throw new HerkosError(
      'InvalidArgument',
      `--publish ${text}: write [ip:]port-of-the-node:port-of-the-pod[/udp]`,
    );
  const [, ip = '', host, inside, protocol = 'tcp'] = match;
  return {
    hostIp: ip.replaceAll(/[[\]]/g, ''),
    hostPort: Number(host),
    containerPort: Number(inside),
    protocol: protocols[protocol] ?? v1.Protocol.TCP,
  };
}

function resources({ memory, cpus }: RunOptions): v1.LinuxContainerResources.$Properties {
  return {
    ...(memory === undefined ? {} : { memoryLimitInBytes: Long.fromNumber(parseBytes(memory)) }),
    ...(cpus === undefined
      ? {}
      : {
          cpuPeriod: Long.fromNumber(cpuPeriodUs),
          cpuQuota: Long.fromNumber(Math.round(cpus * cpuPeriodUs)),
        }),
  };
}

/** A number, or a name that the image knows; `user:group` with numbers. */
function user(text: string | undefined): v1.LinuxContainerSecurityContext.$Properties {
  if (text === undefined) return {};
  const [name = '', group] = text.split(':');
  if (group !== undefined && !/^\d+$/.test(group))
    throw new HerkosError('InvalidArgument', `--user ${text}: the group must be a number`);
  return {
    ...(/^\d+$/.test(name) ? { runAsUser: { value: Long.fromString(name) } } : { runAsUsername: name }),
    ...(group === undefined ? {} : { runAsGroup: { value: Long.fromString(group) } }),
  };
}
