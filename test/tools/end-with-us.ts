import type { ChildProcess } from 'node:child_process';

const children = new Set<ChildProcess>();

/** A child of a test run that is cut short must not outlive it. */
export function endWithUs(child: ChildProcess): void {
  // One listener for all of them: a benchmark has dozens of children at once.
  if (children.size === 0) process.once('exit', killAll);
  children.add(child);
  child.once('exit', () => {
    children.delete(child);
    if (children.size === 0) process.removeListener('exit', killAll);
  });
}

function killAll(): void {
  for (const child of children) child.kill('SIGKILL');
}
