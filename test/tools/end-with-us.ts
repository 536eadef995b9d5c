import type { ChildProcess } from 'node:child_process';

/** A child of a test run that is cut short must not outlive it. */
export function endWithUs(child: ChildProcess): void {
  const kill = (): void => {
    child.kill('SIGKILL');
  };
  process.once('exit', kill);
  child.once('exit', () => {
    process.removeListener('exit', kill);
  });
}
