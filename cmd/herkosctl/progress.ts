import { herkos } from '#gen/admin/v1/api.js';

import { formatBytes } from '../../lib/base/units.js';
import type { Output } from './output.js';

type Progress = herkos.admin.v1.ImageProgress;

const { Phase } = herkos.admin.v1.ImageProgress;
const barWidth = 30;
const columnsDefault = 80;

/** One line that is drawn over and over on a terminal; elsewhere one line a phase. */
export class ProgressBar {
  readonly #output: Output;
  readonly #title: string;
  #phase: number | undefined;

  constructor(output: Output, title: string) {
    this.#output = output;
    this.#title = title;
  }

  show(progress: Progress): void {
    const { stderr } = this.#output;
    // A line that wraps could not be drawn over.
    const columns = (stderr.columns ?? columnsDefault) - 1;
    if (stderr.isTTY === true)
      stderr.write(`\r\x1b[K${progressText(this.#title, progress).slice(0, columns)}`);
    else if (this.#phase !== progress.phase) this.#output.note(progressText(this.#title, progress));
    this.#phase = progress.phase;
  }

  /** Leaves the terminal on a fresh line, whatever happened. */
  end(): void {
    if (this.#phase !== undefined && this.#output.stderr.isTTY === true)
      this.#output.stderr.write('\r\x1b[K');
  }
}

export function progressText(title: string, progress: Progress): string {
  switch (progress.phase) {
    case Phase.PHASE_LAYERS: {
      const total = Number(progress.bytesTotal);
      const done = Math.min(Number(progress.bytesDone), total);
      const filled = total === 0 ? 0 : Math.round((done / total) * barWidth);
      const bar = '#'.repeat(filled) + '.'.repeat(barWidth - filled);
      const layers = `${String(progress.layersDone)}/${String(progress.layersTotal)} layers`;
      return `${title} [${bar}] ${formatBytes(done)} of ${formatBytes(total)}, ${layers}`;
    }
    case Phase.PHASE_JOINING:
      return `${title}: joining small layers`;
    case Phase.PHASE_DONE:
      return `${title}: done`;
    default:
      return `${title}: resolving`;
  }
}
