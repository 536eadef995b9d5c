/** Which pods are run at all: the one place that says no. */
import { HerkosError } from '../base/errors.js';
import { runtimeHandlers } from '../model/runtime.js';
import type { NamespaceOptions, SandboxConfig } from '../model/sandbox.js';

/** @throws InvalidArgument that names the field and what to do */
export function checkSandbox(config: SandboxConfig, runtimeHandler: string): void {
  if (!runtimeHandlers.includes(runtimeHandler))
    throw new HerkosError(
      'InvalidArgument',
      `there is no runtime handler "${runtimeHandler}"; this runtime serves "herkos"`,
    );
  const { name, uid, namespace } = config.metadata;
  if (name === '' || uid === '' || namespace === '')
    throw new HerkosError('InvalidArgument', 'the sandbox’s metadata needs a name, a uid and a namespace');
  refuseHostNamespaces(config.namespaceOptions);
  if (config.logDirectory !== '') checkPath(config.logDirectory, 'log_directory');
  checkLines('hostname', [config.hostname]);
  if (config.dns !== undefined) {
    checkLines('dns_config.servers', config.dns.servers);
    checkLines('dns_config.searches', config.dns.searches);
    checkLines('dns_config.options', config.dns.options);
  }
}

/**
 * A VM has no way into the node's namespaces, and nothing is ever run outside a VM instead
 * (docs/decisions/0003). @throws InvalidArgument
 */
export function refuseHostNamespaces(options: NamespaceOptions): void {
  const wanted = [
    options.network === 'NODE' ? 'hostNetwork' : '',
    options.pid === 'NODE' ? 'hostPID' : '',
    options.ipc === 'NODE' ? 'hostIPC' : '',
  ].filter((name) => name !== '');
  if (wanted.length === 0) return;
  throw new HerkosError(
    'InvalidArgument',
    `the pod asks for ${wanted.join(', ')}, which a pod in a virtual machine cannot have; ` +
      'give it a RuntimeClass of another runtime',
    { reason: 'HOST_NAMESPACE_REFUSED' },
  );
}

/** @throws InvalidArgument for a path that is not absolute or leaves where it seems to be */
export function checkPath(path: string, what: string): void {
  if (!path.startsWith('/') || path.includes('\0') || path.split('/').includes('..'))
    throw new HerkosError('InvalidArgument', `${what} "${path}" must be an absolute path without ".."`);
}

/** These become lines of files in the guest; a line break would start another line. */
function checkLines(what: string, values: readonly string[]): void {
  for (const value of values)
    if (/[\0\r\n]/.test(value)) throw new HerkosError('InvalidArgument', `${what} contains a line break`);
}
