import { finishedLogs, runningDaemons } from './herkosd-process.js';

/**
 * The logs of all daemons that ran since this was called last, those that run still among them.
 * @returns instance name to log
 */
export async function takeLogs(): Promise<Map<string, string>> {
  const logs = new Map(finishedLogs);
  finishedLogs.clear();
  for (const daemon of runningDaemons) logs.set(daemon.instance, await daemon.log());
  return logs;
}

/** The ends of logs, for the report of a failure on a machine that is gone tomorrow. */
export function lastLines(logs: ReadonlyMap<string, string>, linesMax: number): string {
  return [...logs]
    .map(([instance, log]) => {
      const lines = log.trimEnd().split('\n').slice(-linesMax);
      return [`--- the last ${String(lines.length)} log lines of ${instance}`, ...lines, '---', ''].join(
        '\n',
      );
    })
    .join('');
}
