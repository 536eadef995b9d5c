/**
 * From what was asked for to the OCI config.json: a pure function. Network, IPC and UTS namespaces are the
 * guest's own, because the VM is the pod; a container has its own mounts, cgroup view and, unless the pod
 * shares them, processes.
 */
import { HerkosError } from '../../base/errors.js';
import type { ContainerConfig, ContainerUser } from '../../model/container.js';
import type { ImageRunConfig } from '../../model/image.js';
import type { NamespaceOptions } from '../../model/sandbox.js';
import { ociVersion } from '../../wire/ocispec/codec.js';
import type { OciNamespace, OciProcess, OciSeccomp, OciSpec } from '../../wire/ocispec/types.js';
import { capabilitiesOf } from './capabilities.js';
import { commandOf, refuseNul } from './entrypoint.js';
import { environmentOf } from './environment.js';
import { guestPaths } from './guest-paths.js';
import { refuseMounts, standardMounts } from './mounts.js';
import { resourcesOf } from './resources.js';

export interface SpecRequest {
  readonly containerId: string;
  readonly config: ContainerConfig;
  readonly image: Pick<ImageRunConfig, 'entrypoint' | 'cmd' | 'env' | 'workingDir'>;
  readonly user: ContainerUser;
  /** The pod's, as its containers see it. */
  readonly hostname: string;
  /** Undefined: no filter. */
  readonly seccomp: OciSeccomp | undefined;
}

/** @throws InvalidArgument or Unimplemented that names what cannot be done */
export function buildSpec(request: SpecRequest): OciSpec {
  const { config, containerId } = request;
  const { security } = config;
  refuseMounts(config);
  return {
    ociVersion,
    process: processOf(request),
    root: { path: 'rootfs', readonly: security.readonlyRootfs },
    mounts: standardMounts(security.privileged, security.readonlyRootfs),
    linux: {
      cgroupsPath: guestPaths.cgroup(containerId),
      namespaces: namespacesOf(security.namespaceOptions),
      resources: resourcesOf(config.resources, security.privileged),
      maskedPaths: security.privileged ? [] : absolute(security.maskedPaths, 'masked_paths'),
      readonlyPaths: security.privileged ? [] : absolute(security.readonlyPaths, 'readonly_paths'),
      ...(request.seccomp === undefined ? {} : { seccomp: request.seccomp }),
    },
  };
}

function processOf({ config, image, user, hostname }: SpecRequest): OciProcess {
  const { security } = config;
  const cwd = config.workingDir === '' ? image.workingDir : config.workingDir;
  const { oomScoreAdj } = config.resources;
  return {
    terminal: config.tty,
    user: { uid: user.uid, gid: user.gid, additionalGids: user.supplementalGroups },
    args: commandOf(config, image),
    env: environmentOf(config, image.env, hostname),
    cwd: cwd === '' ? '/' : (absolute([cwd], 'working_dir')[0] ?? '/'),
    capabilities: capabilitiesOf(security),
    noNewPrivileges: security.noNewPrivs,
    ...(oomScoreAdj === undefined ? {} : { oomScoreAdj: checkOomScore(oomScoreAdj) }),
  };
}

/** An exec's process: the container's own with another command, and no terminal. */
export function execProcess(container: OciProcess, command: readonly string[]): OciProcess {
  for (const arg of command) refuseNul(arg, 'an argument of the command');
  return { ...container, args: command, terminal: false };
}

function namespacesOf(options: NamespaceOptions): OciNamespace[] {
  return [{ type: 'mount' }, { type: 'cgroup' }, pidNamespaceOf(options)];
}

function pidNamespaceOf(options: NamespaceOptions): OciNamespace {
  switch (options.pid) {
    case 'CONTAINER':
      return { type: 'pid' };
    case 'POD':
      return { type: 'pid', path: guestPaths.podPidNamespace };
    case 'TARGET':
      return { type: 'pid', path: guestPaths.containerPidNamespace(options.targetId) };
    case 'NODE':
      throw new HerkosError('InvalidArgument', 'a container cannot use the PID namespace of the node');
  }
}

function absolute(paths: readonly string[], what: string): readonly string[] {
  for (const path of paths) {
    refuseNul(path, what);
    if (!path.startsWith('/'))
      throw new HerkosError('InvalidArgument', `${what}: '${path}' is not an absolute path`);
  }
  return paths;
}

function checkOomScore(value: number): number {
  if (!Number.isInteger(value) || value < -1000 || value > 1000)
    throw new HerkosError('InvalidArgument', `oom_score_adj ${String(value)} is not between -1000 and 1000`);
  return value;
}
