import type { ContainerConfig } from '../model/container.js';
import type { v1 } from './api.js';
import {
  integer,
  invalid,
  optionalAbsolutePath,
  optionalRelativePath,
  required,
  requiredName,
  requiredText,
  shown,
  stringMap,
  unsupported,
} from './checks.js';
import { decodeMount } from './mount-codec.js';
import { decodeResources } from './resources-codec.js';
import { decodeSecurity, decodeSignal } from './security-codec.js';

const attemptMax = 2 ** 32 - 1;

/** The domain form of a container's config, or an error that names the field. */
export function decodeContainerConfig(
  from: v1.ContainerConfig.$Properties | null | undefined,
): ContainerConfig {
  const config = required(from, 'config');
  const metadata = required(config.metadata, 'config.metadata');
  const image = required(config.image, 'config.image');
  refuseDevices(config);
  return {
    metadata: {
      name: requiredName(metadata.name, 'config.metadata.name'),
      attempt: integer(metadata.attempt, 'config.metadata.attempt', 0, attemptMax),
    },
    image: requiredText(image.image, 'config.image.image'),
    userSpecifiedImage: image.userSpecifiedImage ?? '',
    command: words(config.command ?? [], 'config.command'),
    args: words(config.args ?? [], 'config.args'),
    workingDir: optionalAbsolutePath(config.workingDir, 'config.working_dir'),
    envs: (config.envs ?? []).map(decodeVariable),
    mounts: (config.mounts ?? []).map(decodeMount),
    labels: stringMap(config.labels),
    annotations: stringMap(config.annotations),
    logPath: optionalRelativePath(config.logPath, 'config.log_path'),
    stdin: config.stdin ?? false,
    stdinOnce: config.stdinOnce ?? false,
    tty: config.tty ?? false,
    resources: decodeResources(config.linux?.resources, 'config.linux.resources'),
    security: decodeSecurity(config.linux?.securityContext, 'config.linux.security_context'),
    stopSignal: decodeSignal(config.stopSignal, 'config.stop_signal'),
  };
}

function refuseDevices(config: v1.ContainerConfig.$Properties): void {
  if (config.windows) throw unsupported('config.windows: this runtime runs Linux containers only');
  const device = config.devices?.[0];
  if (device !== undefined)
    throw unsupported(
      `config.devices: the node's device '${shown(device.hostPath ?? '')}' cannot be given to a virtual machine`,
    );
  const cdi = config.CDIDevices?.[0];
  if (cdi !== undefined)
    throw unsupported(
      `config.CDI_devices: the device '${shown(cdi.name ?? '')}' cannot be given to a virtual machine`,
    );
}

/** Words become strings of C, which end at the first NUL. */
function words(list: readonly string[], field: string): string[] {
  const bad = list.find((word) => word.includes('\0'));
  if (bad !== undefined) throw invalid(`${field}: '${shown(bad)}' contains a NUL byte`);
  return [...list];
}

function decodeVariable(from: v1.KeyValue.$Properties): ContainerConfig['envs'][number] {
  const key = requiredText(from.key, 'config.envs.key');
  if (/[=\0]/.test(key)) throw invalid(`config.envs: '${shown(key)}' is not the name of a variable`);
  const value = Buffer.from(from.value ?? new Uint8Array());
  if (value.includes(0)) throw invalid(`config.envs: the value of ${shown(key)} contains a NUL byte`);
  return { key, valueBase64: value.toString('base64') };
}
