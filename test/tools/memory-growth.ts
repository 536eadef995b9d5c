import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;
const sampleMs = 200;

function retainedBytes(): number {
  // The memory of buffers is given back beside the collection that found them dead; a second one waits for that.
  collectGarbage();
  collectGarbage();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

/** The most that this process held beyond what it held before, garbage not counted, while `body` ran. */
export async function growthDuring(body: () => Promise<unknown>): Promise<number> {
  const before = retainedBytes();
  let most = before;
  const sample = (): void => {
    most = Math.max(most, retainedBytes());
  };
  const timer = setInterval(sample, sampleMs);
  try {
    await body();
    sample();
  } finally {
    clearInterval(timer);
  }
  return most - before;
}
