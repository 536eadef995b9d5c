import { setTimeout as wait } from 'node:timers/promises';

/** Waits for what has no event to wait for. How long it may take is the test runner's limit, so it is no timed assertion. */
export async function eventually(isTrue: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isTrue())) await wait(2);
}
