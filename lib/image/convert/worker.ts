/** Entry of a worker thread: takes one job after the other from the pool. */
import { setPriority } from 'node:os';
import { parentPort } from 'node:worker_threads';

import { HerkosError } from '../../base/errors.js';
import { ConvertRun } from './convert-job.js';
import { joinDevices } from './join.js';
import { sendableError } from './messages.js';
import type { ConvertJob, FromWorker, JoinJob, ToWorker } from './messages.js';

const port = parentPort;
if (port === null) throw new Error('this file only runs as a worker thread');

/** Pulls may take the time that nobody else wants: the kubelet's questions come first. */
const niceness = 10;
// Linux gives each thread a priority of its own, and 0 is the thread that asks (setpriority(2)).
setPriority(0, niceness);

function send(message: FromWorker): void {
  port?.postMessage(message);
}

/** The messages of the job that is running, as a queue it reads from. */
class Inbox {
  readonly #waiting: ToWorker[] = [];
  #wake: (() => void) | undefined;

  push(message: ToWorker): void {
    this.#waiting.push(message);
    this.#wake?.();
  }

  async next(): Promise<ToWorker> {
    for (;;) {
      const message = this.#waiting.shift();
      if (message !== undefined) return message;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

let inbox: Inbox | undefined;
let running: { readonly job: number; abort(): void } | undefined;

async function convert(job: ConvertJob, messages: Inbox): Promise<void> {
  const run = new ConvertRun(job, (progress) => {
    send({ kind: 'progress', job: job.job, ...progress });
  });
  let aborted: () => void = () => undefined;
  const stop = new Promise<never>((_resolve, reject) => {
    aborted = (): void => {
      reject(new HerkosError('Cancelled', 'the conversion was stopped'));
    };
  });
  stop.catch(() => undefined);
  running = { job: job.job, abort: aborted };
  const step = async <T>(work: Promise<T>): Promise<T> => {
    work.catch(() => undefined);
    return Promise.race([work, stop]);
  };
  try {
    for (;;) {
      const message = await step(messages.next());
      if (message.kind === 'end') break;
      if (message.kind !== 'chunk') continue;
      await step(run.push(Buffer.from(message.data, 0, message.bytes)));
      port?.postMessage({ kind: 'taken', job: job.job, data: message.data } satisfies FromWorker, [
        message.data,
      ]);
    }
    send({ kind: 'converted', job: job.job, result: await step(run.finish()) });
  } finally {
    running = undefined;
    run.stop();
  }
}

async function join(job: JoinJob): Promise<void> {
  const controller = new AbortController();
  running = {
    job: job.job,
    abort: (): void => {
      controller.abort();
    },
  };
  try {
    const result = await joinDevices(job.files, job.temporaryPath, job.limits, controller.signal);
    send({ kind: 'joined', job: job.job, result });
  } finally {
    running = undefined;
  }
}

async function run(job: ConvertJob | JoinJob): Promise<void> {
  const mine = new Inbox();
  inbox = mine;
  try {
    await (job.kind === 'convert' ? convert(job, mine) : join(job));
  } catch (error) {
    send({ kind: 'failed', job: job.job, error: sendableError(error) });
  }
}

let current = 0;
port.on('message', (message: ToWorker) => {
  if (message.kind === 'convert' || message.kind === 'join') {
    current = message.job;
    void run(message);
    return;
  }
  // Messages of a job that already failed may still be on their way.
  if (message.job !== current) return;
  if (message.kind === 'abort') {
    if (running?.job === message.job) running.abort();
  } else inbox?.push(message);
});
