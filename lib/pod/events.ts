/** State changes of pods, for whoever streams or counts them. */
import { messageOf } from '../base/errors.js';
import type { Logger } from '../base/logger.js';
import type { ContainerRecord } from '../model/container.js';
import type { SandboxRecord } from '../model/sandbox.js';
import type { UnixNano } from '../model/time.js';
import { nowUnixNano } from '../model/time.js';

export type PodChange = 'created' | 'started' | 'stopped' | 'deleted';

export type PodEvent = { readonly change: PodChange; readonly at: UnixNano } & (
  | { readonly kind: 'sandbox'; readonly sandbox: SandboxRecord }
  | { readonly kind: 'container'; readonly container: ContainerRecord }
);

export type PodListener = (event: PodEvent) => void;

export class PodEvents {
  readonly #log: Logger;
  readonly #listeners = new Set<PodListener>();

  constructor(log: Logger) {
    this.#log = log;
  }

  /** @returns a function that ends the subscription */
  listen(listener: PodListener): () => void {
    this.#listeners.add(listener);
    return () => {
      this.#listeners.delete(listener);
    };
  }

  sandbox(change: PodChange, sandbox: SandboxRecord): void {
    this.#emit({ kind: 'sandbox', change, at: nowUnixNano(), sandbox });
  }

  container(change: PodChange, container: ContainerRecord): void {
    this.#emit({ kind: 'container', change, at: nowUnixNano(), container });
  }

  /** A listener that throws must not stop a pod's life. */
  #emit(event: PodEvent): void {
    for (const listener of this.#listeners)
      try {
        listener(event);
      } catch (error) {
        this.#log.error('a listener of pod events failed', { error: messageOf(error) });
      }
  }
}
