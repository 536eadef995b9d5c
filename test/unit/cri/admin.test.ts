import { expect } from 'chai';

import { herkos } from '#gen/admin/v1/api.js';
import { admin } from '#gen/admin/v1/services.js';

import type { CancellableContext } from '../../../lib/base/context.js';
import { background, withTimeout } from '../../../lib/base/context.js';
import { ProgressSender } from '../../../lib/cri/admin-progress.js';
import { untilDone } from '../../fakes/pods.js';
import { Harness } from './harness.js';

type Progress = herkos.admin.v1.ImageProgress;
const { Phase } = herkos.admin.v1.ImageProgress;
const image = 'example.org/app:1';

describe('admin RPCs', () => {
  let cri: Harness;
  let ctx: CancellableContext;
  beforeEach(async () => {
    cri = await Harness.start();
    ctx = withTimeout(background(), 60_000, 'test');
  });
  afterEach(async () => {
    ctx.cancel();
    await cri.stop();
  });

  const all = async (stream: AsyncIterable<Progress>): Promise<Progress[]> => {
    const messages: Progress[] = [];
    for await (const message of stream) messages.push(message);
    return messages;
  };
  const failure = async (stream: AsyncIterable<Progress>): Promise<unknown> =>
    all(stream).then(
      () => expect.fail('should have failed'),
      (error: unknown) => error,
    );

  it('show how a pull goes, and name the image at the end', async () => {
    const messages = await all(
      cri.client.stream(ctx, admin.pullImage, { image, username: 'me', password: 'pw' }),
    );
    expect(messages[0]?.phase).to.equal(Phase.PHASE_RESOLVING);
    expect(messages.some(({ bytesDone }) => String(bytesDone) === '50')).to.equal(true);
    const last = messages.at(-1);
    expect(last?.phase).to.equal(Phase.PHASE_DONE);
    expect(last?.layersDone).to.equal(2);
    expect(last?.imageIds).to.deep.equal([cri.images.find(image)?.id]);
    expect(cri.images.credentials).to.include({ username: 'me', password: 'pw' });
  });

  it('import an archive', async () => {
    const messages = await all(
      cri.client.stream(ctx, admin.importImage, { path: '/tmp/a.tar', name: image }),
    );
    expect(messages.at(-1)?.imageIds).to.deep.equal([cri.images.find(image)?.id]);
  });

  it('fail with the error of the room', async () => {
    const bad = cri.client.stream(ctx, admin.importImage, { path: '/etc/passwd' });
    expect(await failure(bad)).to.include({ class: 'InvalidArgument' });
    expect(await failure(cri.client.stream(ctx, admin.importImage, { path: 'a.tar' }))).to.include({
      class: 'InvalidArgument',
    });
    expect(await failure(cri.client.stream(ctx, admin.pullImage, {}))).to.include({
      class: 'InvalidArgument',
    });
  });

  it('stop the pull when the client leaves', async () => {
    const ended = new Promise<unknown>((resolve) => {
      cri.images.beforePull = async (pull) => {
        ctx.cancel();
        await untilDone(pull).catch(resolve);
      };
    });
    expect(await failure(cri.client.stream(ctx, admin.pullImage, { image }))).to.have.property(
      'class',
      'Cancelled',
    );
    expect(await ended).to.have.property('class', 'Cancelled');
  });

  it('send a flood of progress as a few messages', () => {
    const sent: unknown[] = [];
    const sender = new ProgressSender((message) => sent.push(message));
    for (let bytesDone = 0; bytesDone < 10_000; bytesDone += 1)
      sender.listener({ phase: 'layers', layersTotal: 1, layersDone: 0, bytesTotal: 10_000, bytesDone });
    expect(sent.length).to.be.lessThan(100);
  });
}).timeout(120_000);
