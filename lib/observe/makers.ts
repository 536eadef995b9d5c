import type { Registry } from 'prom-client';
import { Counter, Gauge, Histogram } from 'prom-client';

/** Everything that the daemon tells of itself begins with it. */
export const prefix = 'herkos_';

/** Metrics of one registry; names without the prefix. */
export class Makers {
  readonly #registers: Registry[];

  constructor(registry: Registry) {
    this.#registers = [registry];
  }

  gauge<T extends string>(name: string, help: string, ...labelNames: T[]): Gauge<T> {
    return new Gauge({ name: prefix + name, help, labelNames, registers: this.#registers });
  }

  counter<T extends string>(name: string, help: string, ...labelNames: T[]): Counter<T> {
    return new Counter({ name: prefix + name, help, labelNames, registers: this.#registers });
  }

  /** @param buckets upper ends, in seconds */
  histogram<T extends string>(
    name: string,
    help: string,
    buckets: readonly number[],
    ...labelNames: T[]
  ): Histogram<T> {
    const registers = this.#registers;
    return new Histogram({ name: prefix + name, help, buckets: [...buckets], labelNames, registers });
  }
}
