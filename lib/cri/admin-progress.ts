import Long from 'long';

import { herkos } from '#gen/admin/v1/api.js';

import type { ImageRecord } from '../model/image.js';
import type { PullListener, PullProgress } from './ports.js';

export import admin = herkos.admin.v1;

/** People read it, so more than this often a second is wasted on them. */
const intervalMs = 100;

const { Phase } = admin.ImageProgress;
const phases: Readonly<Record<PullProgress['phase'], admin.ImageProgress.Phase>> = {
  resolving: Phase.PHASE_RESOLVING,
  layers: Phase.PHASE_LAYERS,
  joining: Phase.PHASE_JOINING,
  // The room is done before the answer is: DONE is sent with the ids.
  done: Phase.PHASE_LAYERS,
};

type Send = (message: admin.ImageProgress.$Properties) => void;

/** Passes progress on, at most every `intervalMs` unless the phase or the count of layers changes. */
export class ProgressSender {
  readonly #send: Send;
  #last: PullProgress | undefined;
  #sentAtMs = Number.NEGATIVE_INFINITY;

  constructor(send: Send) {
    this.#send = send;
  }

  readonly listener: PullListener = (progress) => {
    const before = this.#last;
    this.#last = progress;
    const nowMs = performance.now();
    const news = before?.phase !== progress.phase || before.layersDone !== progress.layersDone;
    if (!news && nowMs - this.#sentAtMs < intervalMs) return;
    this.#sentAtMs = nowMs;
    this.#send(encode(progress));
  };

  /** The last message: everything is here, under these ids. */
  done(images: readonly ImageRecord[]): void {
    const counts = this.#last === undefined ? {} : encode(this.#last);
    this.#send({ ...counts, phase: Phase.PHASE_DONE, imageIds: images.map(({ id }) => id) });
  }
}

function encode(progress: PullProgress): admin.ImageProgress.$Properties {
  return {
    phase: phases[progress.phase],
    layersTotal: progress.layersTotal,
    layersDone: progress.layersDone,
    bytesTotal: Long.fromNumber(progress.bytesTotal, true),
    bytesDone: Long.fromNumber(progress.bytesDone, true),
  };
}
