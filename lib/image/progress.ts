import type { PullListener, PullProgress } from '../cri/ports.js';
import { MIB } from '../base/units.js';
import type { DevicePlan, Layer } from './group.js';

/** A listener hears of every finished layer and, in between, once in so many bytes. */
const stepBytes = 1 * MIB;

/** Counts what a pull has done, layer by layer, and tells a listener. */
export class ProgressMeter {
  readonly #listener: PullListener | undefined;
  readonly #done = new Map<Layer, number>();
  readonly #finished = new Set<Layer>();
  readonly #bytesTotal: number;
  readonly #layersTotal: number;
  #phase: PullProgress['phase'] = 'layers';
  #bytesDone = 0;
  #told = 0;

  constructor(plan: readonly DevicePlan[], listener: PullListener | undefined) {
    const layers = plan.flatMap((part) => part.layers);
    this.#listener = listener;
    this.#layersTotal = layers.length;
    this.#bytesTotal = layers.reduce((sum, layer) => sum + layer.descriptor.sizeBytes, 0);
    this.#tell();
  }

  /** Passes a transfer on and counts its bytes. */
  async *count(layer: Layer, bytes: AsyncIterable<Buffer>): AsyncGenerator<Buffer, void, void> {
    for await (const part of bytes) {
      this.#add(layer, part.length);
      if (this.#bytesDone - this.#told >= stepBytes) this.#tell();
      yield part;
    }
  }

  /** What came of a layer so far did not count. */
  restart(layer: Layer): void {
    this.#add(layer, -(this.#done.get(layer) ?? 0));
    this.#told = Math.min(this.#told, this.#bytesDone);
  }

  /** Also for a layer that was there already; calling it twice is harmless. */
  layerDone(layer: Layer): void {
    if (this.#finished.has(layer)) return;
    this.#finished.add(layer);
    this.#add(layer, layer.descriptor.sizeBytes - (this.#done.get(layer) ?? 0));
    this.#tell();
  }

  joining(): void {
    this.#phase = 'joining';
    this.#tell();
  }

  #add(layer: Layer, bytes: number): void {
    this.#done.set(layer, (this.#done.get(layer) ?? 0) + bytes);
    this.#bytesDone += bytes;
  }

  #tell(): void {
    this.#told = this.#bytesDone;
    this.#listener?.({
      phase: this.#phase,
      layersTotal: this.#layersTotal,
      layersDone: this.#finished.size,
      bytesTotal: this.#bytesTotal,
      bytesDone: this.#bytesDone,
    });
  }
}
