import { messageOf } from '../../lib/base/errors.js';
import type { Config } from '../../lib/config/load.js';
import { loadConfig } from '../../lib/config/load.js';
import type { Finding } from './doctor-finding.js';
import type { DoctorHost } from './doctor-host.js';
import { systemHost } from './doctor-host.js';
import { checkKernel, checkLimits } from './doctor-kernel.js';
import type { DaemonView } from './doctor-node.js';
import {
  checkAcceleration,
  checkCni,
  checkDaemon,
  checkMemory,
  checkPrograms,
  checkSpace,
} from './doctor-node.js';
import { Exit, exitCodes } from './exit-codes.js';
import { firstText, infoOf } from './messages.js';
import type { Session } from './session.js';

interface Asked {
  readonly daemon: DaemonView | undefined;
  readonly problem: string;
  /** The daemon's own configuration, or what it would read if it started now. */
  readonly config: Config;
}

/** Looks at the node and at the daemon. Ends with an error when something keeps pods from running. */
export async function doctorCommand(session: Session): Promise<void> {
  const findings = await examine(systemHost(session.ctx), await ask(session));
  session.output.result(findings, () => {
    session.output.table(
      ['', 'CHECK', 'FOUND'],
      findings.map(({ level, check, found }) => [level, check, found]),
    );
    const sick = findings.filter(({ hint }) => hint !== '');
    if (sick.length > 0) session.output.line('');
    for (const { level, check, hint } of sick) session.output.line(`${level} ${check}: ${hint}`);
  });
  if (findings.some(({ level }) => level === 'FAIL')) throw new Exit(exitCodes.error);
}

export async function examine(host: DoctorHost, { daemon, problem, config }: Asked): Promise<Finding[]> {
  const groups = await Promise.all([
    checkAcceleration(host, daemon),
    checkPrograms(host, config),
    checkCni(host, config),
    checkKernel(host),
    checkSpace(host, config),
    checkMemory(host, config),
    checkLimits(host),
  ]);
  return [...checkDaemon(daemon, problem), ...groups.flat()];
}

async function ask(session: Session): Promise<Asked> {
  try {
    const [{ runtimeVersion }, { status, info }] = await Promise.all([
      session.quick(session.rpc.version, {}),
      session.quick(session.rpc.status, { verbose: true }),
    ]);
    const told = infoOf(info);
    const daemon = {
      version: runtimeVersion,
      conditions: (status?.conditions ?? []).map(({ type, status: value, reason, message }) => ({
        type: type ?? '',
        status: value ?? false,
        message: firstText(message, reason),
      })),
      accelerator: text(told['accelerator']),
      acceleratorWhy: text(told['acceleratorWhy']),
    };
    // An older daemon may not tell its configuration.
    const config = isConfig(told['config']) ? told['config'] : await loadConfig();
    return { daemon, problem: '', config };
  } catch (error) {
    return { daemon: undefined, problem: messageOf(error), config: await loadConfig() };
  }
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

function isConfig(value: unknown): value is Config {
  return (
    typeof value === 'object' && value !== null && ['node', 'vm', 'network'].every((key) => key in value)
  );
}
