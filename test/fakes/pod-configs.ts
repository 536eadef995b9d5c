/** Plain requests and an image for tests; each test changes what it is about. */
import { MIB } from '../../lib/base/units.js';
import type { ContainerConfig, ContainerSecurity } from '../../lib/model/container.js';
import type { ImageRecord } from '../../lib/model/image.js';
import type { LinuxResources } from '../../lib/model/resources.js';
import type { SandboxConfig } from '../../lib/model/sandbox.js';

export const testImage: ImageRecord = {
  schemaVersion: 1,
  id: `sha256:${'ab'.repeat(32)}`,
  repoTags: ['docker.io/library/busybox:latest'],
  repoDigests: [`docker.io/library/busybox@sha256:${'cd'.repeat(32)}`],
  sizeBytes: 1000,
  run: {
    user: '',
    env: ['PATH=/bin', 'FROM_IMAGE=1'],
    entrypoint: [],
    cmd: ['/bin/sh', '-c', 'sleep'],
    workingDir: '',
    stopSignal: '',
    labels: {},
    volumes: [],
  },
  diffIds: [`sha256:${'ef'.repeat(32)}`],
  devices: [{ key: 'k', subdirs: [''] }],
  pinned: false,
  pulledAt: '2026-01-01T00:00:00Z',
};

export const testSecurity: ContainerSecurity = {
  privileged: false,
  namespaceOptions: { network: 'POD', pid: 'CONTAINER', ipc: 'POD', targetId: '' },
  supplementalGroups: [],
  supplementalGroupsPolicy: 'Merge',
  readonlyRootfs: false,
  noNewPrivs: false,
  addCapabilities: [],
  dropCapabilities: [],
  addAmbientCapabilities: [],
  maskedPaths: [],
  readonlyPaths: [],
  seccomp: { type: 'Unconfined' },
};

let count = 0;

export function sandboxConfig(changes: Partial<SandboxConfig> = {}): SandboxConfig {
  count += 1;
  return {
    metadata: { name: `pod${String(count)}`, uid: `uid-${String(count)}`, namespace: 'default', attempt: 0 },
    hostname: 'box',
    logDirectory: '',
    portMappings: [],
    labels: { app: 'test' },
    annotations: { note: 'kept' },
    cgroupParent: '',
    sysctls: {},
    namespaceOptions: { network: 'POD', pid: 'CONTAINER', ipc: 'POD', targetId: '' },
    privileged: false,
    ...changes,
  };
}

/** @param script of `sh -c`; the fake guest knows `echo WORDS`, `exit N`, `sleep` and `trap` (ends on SIGKILL only). */
export function containerConfig(script: string, changes: Partial<ContainerConfig> = {}): ContainerConfig {
  count += 1;
  return {
    metadata: { name: `container${String(count)}`, attempt: 0 },
    image: 'busybox',
    userSpecifiedImage: 'busybox',
    command: ['/bin/sh', '-c', script],
    args: [],
    workingDir: '',
    envs: [],
    mounts: [],
    labels: {},
    annotations: {},
    logPath: '',
    stdin: false,
    stdinOnce: false,
    tty: false,
    resources: {},
    security: testSecurity,
    stopSignal: '',
    ...changes,
  };
}

export function limits(mib: number, cpus = 1): LinuxResources {
  return { memoryLimitBytes: mib * MIB, cpuQuotaUs: cpus * 100_000, cpuPeriodUs: 100_000 };
}
