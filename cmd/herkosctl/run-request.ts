/** From the options of `herkosctl run` to the messages of CRI. */
import { randomBytes, randomUUID } from 'node:crypto';

import Long from 'long';

import { v1 } from '../../lib/cri/api.js';
import type { Credentials } from './option-values.js';
import { logDirectory, madeByRun, namespace } from './pod-logs.js';

export interface RunOptions {
  readonly name?: string;
  readonly rm?: boolean;
  readonly detach?: boolean;
  readonly pull: 'always' | 'missing' | 'never';
  readonly creds?: Credentials;
  readonly quiet?: boolean;
  readonly env: readonly string[];
  readonly publish: readonly v1.PortMapping.$Properties[];
  /** Bytes. */
  readonly memory?: number;
  readonly cpus?: number;
  readonly user?: v1.LinuxContainerSecurityContext.$Properties;
  readonly workdir?: string;
  readonly runtimeHandler: string;
  readonly logDir: string;
}

const containerName = 'main';
const cpuPeriodUs = 100_000;

export interface RunPlan {
  readonly name: string;
  readonly sandbox: v1.PodSandboxConfig.$Properties;
  readonly container: v1.ContainerConfig.$Properties;
}

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
      logDirectory: logDirectory(options.logDir, name, uid),
      portMappings: [...options.publish],
      labels,
      annotations: madeByRun,
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
          ...options.user,
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

function resources({ memory, cpus }: RunOptions): v1.LinuxContainerResources.$Properties {
  return {
    ...(memory === undefined ? {} : { memoryLimitInBytes: Long.fromNumber(memory) }),
    ...(cpus === undefined
      ? {}
      : {
          cpuPeriod: Long.fromNumber(cpuPeriodUs),
          cpuQuota: Long.fromNumber(Math.round(cpus * cpuPeriodUs)),
        }),
  };
}
