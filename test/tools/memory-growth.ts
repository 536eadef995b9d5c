import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;
const pauseMs = 200;
/** A collection takes as long as the heap of all tests is large; between two, `body` gets so many times that. */
const pauseFactor = 5;

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
  let timer: NodeJS.Timeout;
  const sample = (): void => {
    const begun = performance.now();
    most = Math.max(most, retainedBytes());
    timer = setTimeout(sample, Math.max(pauseMs, pauseFactor * (performance.now() - begun)));
  };
  timer = setTimeout(sample, pauseMs);
  try {
    await body();
    clearTimeout(timer);
    sample();
  } finally {
    clearTimeout(timer);
  }
  return most - before;
}
