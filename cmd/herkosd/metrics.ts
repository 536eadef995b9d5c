import type { Logger } from '../../lib/base/logger.js';
import type { Config } from '../../lib/config/load.js';
import type { RegistryClient } from '../../lib/image/ports.js';
import { countedRegistry } from '../../lib/observe/counted-registry.js';
import type { EventMetrics } from '../../lib/observe/event-metrics.js';
import type { NodeView } from '../../lib/observe/node-view.js';
import { version } from './version.js';

/** The metrics of this node as its parts are built. Switched off, it is nothing and costs nothing. */
export interface NodeMetrics {
  /** What the rooms tell. */
  readonly observer: EventMetrics | undefined;
  countPulls(registry: RegistryClient): RegistryClient;
  /** The daemon serves. */
  watch(view: NodeView): void;
  /** It does not any more: so says /healthz from now on. */
  notServing(): void;
  close(): Promise<void>;
}

const none: NodeMetrics = {
  observer: undefined,
  countPulls: (registry) => registry,
  watch: () => undefined,
  notServing: () => undefined,
  close: () => Promise.resolve(),
};

/** Serves them where the configuration says. @throws FailedPrecondition when it cannot listen there */
export async function openMetrics(config: Config, logger: Logger): Promise<NodeMetrics> {
  const { address } = config.metrics;
  if (address === undefined) return none;
  // Loaded only here: it takes 60 ms and some MiB, which nobody should pay who has not asked for it.
  const [{ Metrics }, { MetricsServer }] = await Promise.all([
    import('../../lib/observe/metrics.js'),
    import('../../lib/observe/metrics-server.js'),
  ]);
  const metrics = new Metrics({ version, logger });
  const { events: observer, contentType } = metrics;
  let serving = false;
  const server = await MetricsServer.listen({
    ...address,
    contentType,
    text: () => metrics.text(),
    isServing: () => serving,
    logger,
  });
  logger.info('serving metrics', { address: server.address });
  return {
    observer,
    countPulls: (registry) =>
      countedRegistry(registry, (bytes) => {
        observer.pulled(bytes);
      }),
    watch: (view) => {
      metrics.watch(view);
      serving = true;
    },
    notServing: () => {
      serving = false;
    },
    close: () => server.close(),
  };
}
