import { HerkosError } from '../../base/errors.js';
import type { ContainerConfig } from '../../model/container.js';
import type { ImageRunConfig } from '../../model/image.js';

/**
 * What to run: `command` replaces the image's entrypoint and discards its cmd, `args` replaces its cmd
 * (the Kubernetes rule, cri-behaviour §1.7). @throws InvalidArgument when nothing is left to run
 */
export function commandOf(
  config: Pick<ContainerConfig, 'command' | 'args'>,
  image: Pick<ImageRunConfig, 'entrypoint' | 'cmd'>,
): string[] {
  const entrypoint = config.command.length > 0 ? config.command : image.entrypoint;
  const imageArgs = config.command.length > 0 ? [] : image.cmd;
  const args = [...entrypoint, ...(config.args.length > 0 ? config.args : imageArgs)];
  if (args.length === 0 || args[0] === '')
    throw new HerkosError(
      'InvalidArgument',
      'there is nothing to run: the image has no entrypoint or cmd; give the container a command',
    );
  for (const arg of args) refuseNul(arg, 'an argument of the command');
  return args;
}

/** The kernel ends strings at NUL: what comes after it would be dropped without a word. */
export function refuseNul(text: string, what: string): void {
  if (text.includes('\0')) throw new HerkosError('InvalidArgument', `${what} contains a NUL byte`);
}
