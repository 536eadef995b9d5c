import { expect } from 'chai';

import { HerkosError } from '../../../lib/base/errors.js';
import { ImageIndex, settleTags } from '../../../lib/image/image-index.js';
import type { ImageRecord } from '../../../lib/model/image.js';
import { sha256Digest } from '../../../lib/wire/oci/digest.js';

function record(id: string, repoTags: string[], more: Partial<ImageRecord> = {}): ImageRecord {
  return {
    schemaVersion: 1,
    id,
    repoTags,
    repoDigests: [],
    sizeBytes: 1,
    run: {
      user: '',
      env: [],
      entrypoint: [],
      cmd: [],
      workingDir: '',
      stopSignal: '',
      labels: {},
      volumes: [],
    },
    diffIds: [],
    devices: [{ key: 'k', subdirs: [''] }],
    pinned: false,
    pulledAt: '2026-01-01T00:00:00.000Z',
    ...more,
  };
}

describe('ImageIndex', () => {
  const hexA = `aaaaaaaa${'1'.repeat(56)}`;
  const hexB = `aaaaaaab${'2'.repeat(56)}`;
  const digest = `docker.io/library/a@${sha256Digest('m')}`;

  it('finds an image by everything that names it', () => {
    const index = new ImageIndex();
    const a = record(`sha256:${hexA}`, ['docker.io/library/a:latest', 'r.example/x:1'], {
      repoDigests: [digest],
    });
    index.set(a);
    index.set(record(`sha256:${hexB}`, []));
    const good = [
      a.id,
      hexA,
      'a',
      'a:latest',
      'docker.io/a',
      'library/a',
      'r.example/x:1',
      digest,
      hexA.slice(0, 8),
      `sha256:${hexA.slice(0, 9)}`,
    ];
    for (const reference of good) expect(index.find(reference)?.id, reference).to.equal(a.id);
    const bad = [
      'b',
      'a:2',
      'r.example/x',
      'aaaa',
      '',
      '///',
      sha256Digest('x'),
      `r.example/x@${sha256Digest('m')}`,
    ];
    for (const reference of bad) expect(index.find(reference), reference).to.equal(undefined);
    expect(() => index.find('aaaaaaa')).to.throw(HerkosError, /2 images/);
  });

  it('prefers a name to the beginning of an id', () => {
    const index = new ImageIndex();
    index.set(record(`sha256:${hexA}`, []));
    index.set(record(`sha256:${hexB}`, ['docker.io/library/aaaaaaaa:latest']));
    expect(index.find('aaaaaaaa')?.id).to.equal(`sha256:${hexB}`);
  });

  it('hides what was removed and counts device files', () => {
    const index = new ImageIndex();
    const a = record(`sha256:${hexA}`, ['docker.io/library/a:latest']);
    index.set(a);
    index.set(record(`sha256:${hexB}`, []));
    index.setHold('c1', a.id);
    index.set({ ...a, repoTags: [], removed: true });
    for (const reference of [a.id, hexA, 'a', hexA.slice(0, 12)])
      expect(index.find(reference)).to.equal(undefined);
    expect(index.list().length).to.equal(1);
    expect(index.abandoned()).to.deep.equal([]);
    index.deleteHold('c1');
    expect(index.abandoned().length).to.equal(1);
    index.delete(a.id);
    expect(index.isNeeded('k')).to.equal(true);
    index.delete(`sha256:${hexB}`);
    expect(index.isNeeded('k')).to.equal(false);
  });

  it('gives a tag that two records claim to the later pull', () => {
    const older = record(`sha256:${hexA}`, ['x:1', 'y:1'], { pulledAt: '2026-01-01T00:00:00.000Z' });
    const newer = record(`sha256:${hexB}`, ['x:1'], { pulledAt: '2026-01-02T00:00:00.000Z' });
    for (const list of [
      [older, newer],
      [newer, older],
    ]) {
      const { records, changed } = settleTags(list);
      expect(changed.map((entry) => [entry.id, entry.repoTags])).to.deep.equal([[older.id, ['y:1']]]);
      expect(records.find((entry) => entry.id === newer.id)?.repoTags).to.deep.equal(['x:1']);
    }
  });
});
