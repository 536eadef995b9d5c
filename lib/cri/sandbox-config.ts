import type { DnsConfig, PortMapping, Protocol, SandboxConfig, SandboxMetadata } from '../model/sandbox.js';
import { v1 } from './api.js';
import {
  enumName,
  integer,
  invalid,
  optionalAbsolutePath,
  required,
  requiredName,
  shown,
  stringMap,
  unsupported,
} from './checks.js';
import { decodeNamespaceOptions } from './namespace-codec.js';
import { decodeResources } from './resources-codec.js';
import { refuseLocalApparmor, refuseSelinux } from './security-codec.js';

const protocols: Readonly<Record<number, Protocol>> = {
  [v1.Protocol.TCP]: 'TCP',
  [v1.Protocol.UDP]: 'UDP',
  [v1.Protocol.SCTP]: 'SCTP',
};
const portMax = 65_535;
/** The kernel's __NEW_UTS_LEN. */
const hostnameLengthMax = 64;
const hostnamePattern = /^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$/;
const sysctlPattern = /^[A-Za-z0-9_-]+([./][A-Za-z0-9_-]+)*$/;
const attemptMax = 2 ** 32 - 1;

/** The domain form of a pod's config, or an error that names the field. */
export function decodeSandboxConfig(from: v1.PodSandboxConfig.$Properties | null | undefined): SandboxConfig {
  const config = required(from, 'config');
  if (config.windows) throw unsupported('config.windows: this runtime runs Linux pods only');
  const metadata = decodeSandboxMetadata(config.metadata);
  const dns = decodeDns(config.dnsConfig);
  return {
    metadata,
    hostname: decodeHostname(config.hostname ?? ''),
    logDirectory: optionalAbsolutePath(config.logDirectory, 'config.log_directory'),
    ...(dns === undefined ? {} : { dns }),
    portMappings: (config.portMappings ?? []).map(decodePortMapping),
    labels: stringMap(config.labels),
    annotations: stringMap(config.annotations),
    ...decodeLinux(config.linux),
  };
}

export function decodeSandboxMetadata(
  from: v1.PodSandboxMetadata.$Properties | null | undefined,
): SandboxMetadata {
  const metadata = required(from, 'config.metadata');
  return {
    name: requiredName(metadata.name, 'config.metadata.name'),
    namespace: requiredName(metadata.namespace, 'config.metadata.namespace'),
    uid: requiredName(metadata.uid, 'config.metadata.uid'),
    attempt: integer(metadata.attempt, 'config.metadata.attempt', 0, attemptMax),
  };
}

type LinuxPart = Pick<
  SandboxConfig,
  'cgroupParent' | 'sysctls' | 'namespaceOptions' | 'privileged' | 'resources' | 'overhead'
>;

/**
 * There is no pause process in the virtual machine, so the parts of the pod's security context that would
 * confine one (its user, its seccomp profile, its root file system) have nothing to act on.
 */
function decodeLinux(linux: v1.LinuxPodSandboxConfig.$Properties | null | undefined): LinuxPart {
  const security = linux?.securityContext;
  refuseSelinux(security?.selinuxOptions, 'config.linux.security_context.selinux_options');
  refuseLocalApparmor(security?.apparmor, 'config.linux.security_context.apparmor');
  const resources = decodeResources(linux?.resources, 'config.linux.resources');
  const overhead = decodeResources(linux?.overhead, 'config.linux.overhead');
  return {
    cgroupParent: decodeCgroupParent(linux?.cgroupParent ?? ''),
    sysctls: decodeSysctls(linux?.sysctls),
    namespaceOptions: decodeNamespaceOptions(
      security?.namespaceOptions,
      'config.linux.security_context.namespace_options',
    ),
    privileged: security?.privileged ?? false,
    ...(Object.keys(resources).length === 0 ? {} : { resources }),
    ...(Object.keys(overhead).length === 0 ? {} : { overhead }),
  };
}

function decodeHostname(hostname: string): string {
  if (hostname === '') return '';
  if (hostname.length > hostnameLengthMax || !hostnamePattern.test(hostname))
    throw invalid(
      `config.hostname '${shown(hostname)}' is not valid: letters, digits, '.', '_' and '-', ` +
        `at most ${String(hostnameLengthMax)}`,
    );
  return hostname;
}

/** An empty config is none: the node's own resolv.conf is used then. */
function decodeDns(from: v1.DNSConfig.$Properties | null | undefined): DnsConfig | undefined {
  const dns = { servers: from?.servers ?? [], searches: from?.searches ?? [], options: from?.options ?? [] };
  const words = [...dns.servers, ...dns.searches, ...dns.options];
  if (words.length === 0) return undefined;
  for (const word of words)
    // Each becomes a word of a line in resolv.conf.
    if (word === '' || /[\s\0]/.test(word))
      throw invalid(`config.dns_config: '${shown(word)}' is not one word`);
  return dns;
}

function decodePortMapping(from: v1.PortMapping.$Properties): PortMapping {
  return {
    protocol: enumName(protocols, from.protocol, 'config.port_mappings.protocol'),
    containerPort: integer(from.containerPort, 'config.port_mappings.container_port', 0, portMax),
    hostPort: integer(from.hostPort, 'config.port_mappings.host_port', 0, portMax),
    hostIp: from.hostIp ?? '',
  };
}

function decodeCgroupParent(parent: string): string {
  if (parent === '') return '';
  const absolute = parent.startsWith('/');
  if (
    (!absolute && !/^[^/]+\.slice$/.test(parent)) ||
    parent.split('/').includes('..') ||
    parent.includes('\0')
  )
    throw invalid(
      `config.linux.cgroup_parent '${shown(parent)}' is neither an absolute path without '..' nor a systemd slice`,
    );
  return parent;
}

function decodeSysctls(from: Readonly<Record<string, string>> | null | undefined): Record<string, string> {
  const sysctls = stringMap(from);
  for (const name of Object.keys(sysctls))
    if (!sysctlPattern.test(name))
      throw invalid(`config.linux.sysctls: '${shown(name)}' is not the name of a sysctl`);
  return sysctls;
}
