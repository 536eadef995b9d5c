import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { join } from 'node:path';

import type { Context } from '../../base/context.js';
import { underDeadline } from '../../base/context.js';
import type { ErrorClass } from '../../base/errors.js';
import { HerkosError, classOf, messageOf } from '../../base/errors.js';
import type { Exec } from '../../base/exec.js';
import { Semaphore } from '../../base/semaphore.js';
import type { CniCommand, InvocationTarget } from '../../wire/cni/invocation.js';
import { pluginEnv } from '../../wire/cni/invocation.js';
import type { JsonObject } from '../../wire/cni/json.js';
import { cniJsonBytesMax } from '../../wire/cni/json.js';
import type { CniErrorReport } from '../../wire/cni/result.js';
import { parseErrorReport, printable } from '../../wire/cni/result.js';
import type { CniSettings } from './settings.js';

export const pluginMissingReason = 'NetworkPluginMissing';

/** A plugin that failed and said why. */
export class PluginError extends HerkosError {
  /** The code of its report (CNI specification, section 5), or undefined when it gave none. */
  readonly code: number | undefined;

  constructor(message: string, code: number | undefined) {
    super(classOfCode(code), message);
    this.code = code;
  }
}

/** Error codes of the specification that are handled. */
export const cniCodes = {
  incompatibleVersion: 1,
  invalidEnvironment: 4,
  invalidConfig: 7,
  tryLater: 11,
} as const;

const pluginsAtOnceMax = 32;
const anyExitCode: readonly number[] = Array.from({ length: 256 }, (_, code) => code);
const sbin = ['/usr/local/sbin', '/usr/sbin', '/sbin', '/usr/local/bin', '/usr/bin', '/bin'];

/** The plugins of Debian's package containernetworking-plugins. */
const packaged = new Set(
  (
    'bandwidth bridge dhcp firewall host-device host-local ipvlan loopback macvlan portmap ptp sbr static ' +
    'tuning vlan vrf'
  ).split(' '),
);

/** Finds and runs plugin binaries. */
export class PluginRunner {
  readonly #exec: Exec;
  readonly #binDirs: readonly string[];
  readonly #timeoutMs: number;
  readonly #slots = new Semaphore(pluginsAtOnceMax);

  constructor(exec: Exec, settings: Pick<CniSettings, 'binDirs' | 'pluginTimeoutMs'>) {
    this.#exec = exec;
    this.#binDirs = settings.binDirs;
    this.#timeoutMs = settings.pluginTimeoutMs;
  }

  /**
   * Path of a plugin's binary. `type` never holds a slash: the parser of configurations sees to that.
   * @throws HerkosError `FailedPrecondition` that says what to install
   */
  async find(type: string): Promise<string> {
    for (const directory of this.#binDirs) {
      const path = join(directory, type);
      if (await isProgram(path)) return path;
    }
    const advice = packaged.has(type)
      ? 'install the package containernetworking-plugins'
      : 'install it, or the network add-on that brings it';
    throw new HerkosError(
      'FailedPrecondition',
      `CNI plugin '${type}' is not in ${this.#binDirs.join(', ')}; ${advice}`,
      { reason: pluginMissingReason },
    );
  }

  /** Runs a plugin and returns what it printed. @throws PluginError when it failed, DeadlineExceeded when it hung */
  async run(
    ctx: Context,
    command: CniCommand,
    type: string,
    target: InvocationTarget,
    input: JsonObject,
  ): Promise<string> {
    const path = await this.find(type);
    const what = `CNI plugin ${type} (${command})`;
    const options = {
      input: JSON.stringify(input),
      // The daemon's own environment may hold secrets; plugins find iptables and friends by PATH.
      env: { PATH: sbin.join(':'), ...pluginEnv(command, target, this.#binDirs) },
      outputBytesMax: cniJsonBytesMax,
      okExitCodes: anyExitCode,
    };
    const result = await this.#slots.run(ctx, () =>
      underDeadline(ctx, this.#timeoutMs, what, (bounded) =>
        this.#exec.run(bounded, path, [], options).catch((error: unknown) => {
          throw bounded.signal.aborted ? error : withoutControls(what, error);
        }),
      ),
    );
    const stdout = result.stdout.toString('utf8');
    if (result.exitCode !== 0)
      throw pluginError(what, result.exitCode, stdout, result.stderr.toString('utf8'));
    // An ADD that says why it failed has failed: without what it was to do, the pod is in another network than meant.
    const report = command === 'ADD' ? parseErrorReport(stdout) : undefined;
    if (report !== undefined) throw reportedError(what, report);
    return stdout;
  }
}

/** What ended by a signal, or cannot be run, has words of its own in the error, too. */
function withoutControls(what: string, error: unknown): HerkosError {
  return new HerkosError(classOf(error), `${what}: ${printable(messageOf(error))}`, { cause: error });
}

function reportedError(what: string, { code, message, details }: CniErrorReport): PluginError {
  const more = details === '' ? '' : ` (${details})`;
  return new PluginError(`${what}: ${message}${more}, code ${String(code)}`, code);
}

function pluginError(what: string, exitCode: number, stdout: string, stderr: string): PluginError {
  const report = parseErrorReport(stdout);
  if (report !== undefined) return reportedError(what, report);
  const said = printable(stderr.trim() === '' ? stdout : stderr);
  return new PluginError(`${what} failed with exit code ${String(exitCode)}: ${said}`, undefined);
}

function classOfCode(code: number | undefined): ErrorClass {
  if (code === cniCodes.tryLater) return 'Unavailable';
  if (code === cniCodes.incompatibleVersion || code === cniCodes.invalidConfig) return 'FailedPrecondition';
  return 'Internal';
}

async function isProgram(path: string): Promise<boolean> {
  try {
    if (!(await stat(path)).isFile()) return false;
    await access(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
