import { expect } from 'chai';
import Long from 'long';

import { herkos } from '#gen/admin/v1/api.js';

import { Output, shownAge } from '../../../cmd/herkosctl/output.js';
import { ProgressBar, progressText } from '../../../cmd/herkosctl/progress.js';

const { ImageProgress } = herkos.admin.v1;
const { Phase } = ImageProgress;

const half = ImageProgress.create({
  phase: Phase.PHASE_LAYERS,
  layersTotal: 4,
  layersDone: 1,
  bytesTotal: Long.fromNumber(200, true),
  bytesDone: Long.fromNumber(100, true),
});

function drawn(stream: { isTTY?: boolean; columns?: number }): string {
  let text = '';
  const stderr = { ...stream, write: (part: string | Uint8Array) => (text += part.toString()) };
  const bar = new ProgressBar(new Output('table', stderr, stderr), 'pull x');
  bar.show(half);
  bar.show(half);
  bar.end();
  return text;
}

describe('progress', () => {
  it('shows how much is done', () => {
    expect(progressText('pull x', half)).to.equal(
      `pull x [${'#'.repeat(15)}${'.'.repeat(15)}] 100 B of 200 B, 1/4 layers`,
    );
  });

  it('never shows more than all, nor less than nothing', () => {
    const odd = ImageProgress.create({ phase: Phase.PHASE_LAYERS, bytesDone: Long.fromNumber(9, true) });
    expect(progressText('t', odd)).to.contain('0 B of 0 B');
  });

  it('draws over its own line on a terminal, within its width', () => {
    const parts = drawn({ isTTY: true, columns: 20 }).split('\r\x1b[K');
    expect(parts).to.have.lengthOf(4);
    for (const part of parts) expect(part.length).to.be.lessThan(20);
    expect(parts.at(-1)).to.equal('');
  });

  it('writes one plain line a phase elsewhere', () => {
    expect(drawn({})).to.match(/^pull x \[[^\n]+\n$/);
  });
}).timeout(120_000);

describe('age', () => {
  const nowMs = 1_800_000_000_000;
  const ago = (seconds: number): string =>
    shownAge(String(BigInt(nowMs - seconds * 1000) * 1_000_000n), nowMs);
  it('is told in the largest unit that fits', () => {
    expect([ago(5), ago(60), ago(7300), ago(86_400 * 3)]).to.deep.equal([
      '5 s ago',
      '1 minute ago',
      '2 hours ago',
      '3 days ago',
    ]);
    expect(shownAge('0')).to.equal('-');
    expect(ago(-50)).to.equal('0 s ago');
  });
}).timeout(120_000);
