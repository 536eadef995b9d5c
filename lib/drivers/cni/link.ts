/**
 * The path of frames inside a pod's namespace: what comes in on one device goes out on the other, both
 * ways, by `tc` redirects at ingress. That is before the namespace's own network stack sees a frame, so
 * the addresses that the plugins put on eth0 never answer there: the guest answers for them.
 */
import { stat } from 'node:fs/promises';

import type { Context } from '../../base/context.js';
import { HerkosError, isErrno, messageOf } from '../../base/errors.js';
import type { Exec } from '../../base/exec.js';
import type { LinkState } from '../../wire/cni/link-state.js';
import { parseLinkState } from '../../wire/cni/link-state.js';

/** Linux's limit, without the terminating NUL. */
const ifNamePattern = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}$/;

/** Runs one program inside the namespace at `netnsPath`; nsenter replaces itself, so it costs one process. */
export async function runInNetns(
  ctx: Context,
  exec: Exec,
  netnsPath: string,
  argv: readonly [string, ...string[]],
  input = '',
): Promise<string> {
  const { stdout } = await exec.run(ctx, 'nsenter', [`--net=${netnsPath}`, '--', ...argv], { input });
  return stdout.toString('utf8');
}

/** Lines for `ip -batch -` in the namespace. */
export async function ipBatch(
  ctx: Context,
  exec: Exec,
  netnsPath: string,
  lines: readonly string[],
): Promise<void> {
  await runInNetns(ctx, exec, netnsPath, ['ip', '-batch', '-'], `${lines.join('\n')}\n`);
}

/**
 * What the kernel has on a device, addresses and routes included.
 * @throws HerkosError `FailedPrecondition` when there is no such device
 */
export async function readLink(
  ctx: Context,
  exec: Exec,
  netnsPath: string,
  device: string,
): Promise<LinkState> {
  checkIfName(device);
  // `table all` is how one call shows the routes of both families.
  const commands = `address show dev ${device}\nroute show table all dev ${device}\n`;
  const ip = ['ip', '-json', '-details', '-batch', '-'] as const;
  const output = await runInNetns(ctx, exec, netnsPath, ip, commands).catch((error: unknown) => {
    if (!messageOf(error).includes(`Device "${device}" does not exist`)) throw error;
    throw new HerkosError(
      'FailedPrecondition',
      `the CNI plugins made no ${device} in ${netnsPath}; see the plugins that the network configuration names`,
      { cause: error },
    );
  });
  return parseLinkState(output);
}

/**
 * Refuses a device whose frames cannot be handed to a guest that has a MAC address of its own.
 * @throws HerkosError `FailedPrecondition`
 */
export function checkRedirectable(link: LinkState): void {
  const refused = (why: string): HerkosError =>
    new HerkosError(
      'FailedPrecondition',
      `${link.name} ${why}; use bridge, ptp, macvlan or an add-on that gives a veth`,
    );
  if (link.kind === 'ipvlan')
    throw refused('is an ipvlan device: it shares one MAC address among pods, which a VM cannot');
  if (link.linkType !== 'ether' || link.flags.has('NOARP')) throw refused('does not carry Ethernet frames');
}

/** Redirects every frame that enters `a` to `b` and the other way round. */
export async function joinDevices(
  ctx: Context,
  exec: Exec,
  netnsPath: string,
  a: string,
  b: string,
): Promise<void> {
  const lines = [...redirectLines(a, b), ...redirectLines(b, a)];
  await runInNetns(ctx, exec, netnsPath, ['tc', '-batch', '-'], `${lines.join('\n')}\n`);
}

export async function netnsExists(netnsPath: string): Promise<boolean> {
  try {
    // A crash between making the file and mounting the namespace on it leaves a plain file.
    const [found, namespace] = await Promise.all([stat(netnsPath), stat('/proc/self/ns/net')]);
    return found.dev === namespace.dev;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return false;
    throw error;
  }
}

export function checkIfName(name: string): void {
  if (!ifNamePattern.test(name))
    throw new HerkosError('InvalidArgument', `'${name}' cannot be the name of a network device`);
}

/**
 * u32 with an empty mask matches everything; kernels without the matchall module have it too. With its
 * fixed handle the filter replaces the one of an attachment before, whose device is gone.
 */
function redirectLines(from: string, to: string): string[] {
  checkIfName(from);
  checkIfName(to);
  return [
    `qdisc replace dev ${from} ingress`,
    `filter replace dev ${from} parent ffff: protocol all prio 1 handle 800::1 u32 match u32 0 0 ` +
      `action mirred egress redirect dev ${to}`,
  ];
}
