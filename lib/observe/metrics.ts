import type { Counter } from 'prom-client';
import { Registry, collectDefaultMetrics } from 'prom-client';

import { background, sleep, underDeadline } from '../base/context.js';
import { messageOf } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import { EventMetrics } from './event-metrics.js';
import { Makers, prefix } from './makers.js';
import type { NodeView } from './node-view.js';
import type { StatePart } from './state-parts.js';
import { stateParts } from './state-parts.js';

/** A kernel file or a stat that hangs must not hold the others up. */
const lookTimeoutMs = 2_000;
/** The sampling wakes the process up so often; what stalls for less is not seen. */
const loopSampleMs = 20;
/** Somebody who asks all the time gets so large a part of the event loop's time, and waits for the rest. */
const busyPartMax = 0.05;
const restMsMax = 1_000;

export interface MetricsOptions {
  readonly version: string;
  readonly logger: Logger;
  /** Off in tests, which share one process. */
  readonly ofProcess?: boolean;
}

/** The metrics of this daemon, as text. What happens is counted at once, how things are is looked up when asked. */
export class Metrics {
  readonly events: EventMetrics;
  readonly #registry = new Registry();
  readonly #parts: readonly StatePart[];
  readonly #failures: Counter<'part'>;
  readonly #logger: Logger;
  #view: NodeView | undefined;
  #writing: Promise<string> | undefined;
  /** performance.now() before which nothing is written. */
  #restUntilMs = 0;

  constructor({ version, logger, ofProcess = true }: MetricsOptions) {
    const make = new Makers(this.#registry);
    this.#logger = logger;
    make.gauge('build_info', 'Always 1.', 'version').set({ version }, 1);
    this.events = new EventMetrics(make);
    this.#parts = stateParts(make);
    this.#failures = make.counter(
      'scrape_failures_total',
      'Looks at a part of the daemon that failed; its metrics are missing then.',
      'part',
    );
    if (ofProcess)
      collectDefaultMetrics({
        register: this.#registry,
        prefix,
        eventLoopMonitoringPrecision: loopSampleMs,
      });
  }

  /** MIME type of the text. */
  get contentType(): string {
    return this.#registry.contentType;
  }

  /** From now on there is something to look at. */
  watch(view: NodeView): void {
    this.#view = view;
  }

  /** Those who ask at the same time get the same answer: however many they are, the work is done once. */
  async text(): Promise<string> {
    this.#writing ??= this.#write().finally(() => {
      this.#writing = undefined;
    });
    return this.#writing;
  }

  async #write(): Promise<string> {
    await sleep(background(), this.#restUntilMs - performance.now());
    const startedMs = performance.now();
    const view = this.#view;
    if (view !== undefined) await Promise.all(this.#parts.map((part) => this.#refresh(part, view)));
    const text = await this.#registry.metrics();
    const endedMs = performance.now();
    this.#restUntilMs = endedMs + Math.min((endedMs - startedMs) / busyPartMax, restMsMax);
    return text;
  }

  async #refresh({ name, metrics, look }: StatePart, view: NodeView): Promise<void> {
    const reset = (): void => {
      for (const metric of metrics) metric.reset();
    };
    try {
      const set = await underDeadline(background(), lookTimeoutMs, `a look at ${name}`, async () =>
        look(view),
      );
      reset();
      set();
    } catch (error) {
      // No value is better than an old one that looks like a new one.
      reset();
      this.#failures.inc({ part: name });
      this.#logger.debug('a part of the metrics is missing', { part: name, error: messageOf(error) });
    }
  }
}
