import { expect } from 'chai';

import { background, withCancel } from '../../../lib/base/context.js';
import { HerkosError } from '../../../lib/base/errors.js';
import { untilDone } from '../../fakes/pods.js';
import { Harness } from './harness.js';

const name = 'example.org/app:1';

describe('image RPCs', () => {
  let cri: Harness;
  beforeEach(async () => {
    cri = await Harness.start();
  });
  afterEach(async () => {
    await cri.stop();
  });

  it('pull, find by every name, list and remove', async () => {
    const { imageRef } = await cri.call(cri.rpc.pullImage, { image: { image: name } });
    expect(imageRef).to.match(/^sha256:[0-9a-f]{64}$/);
    for (const image of [name, imageRef]) {
      const answer = await cri.call(cri.rpc.imageStatus, { image: { image } });
      expect(answer.image?.id).to.equal(imageRef);
      expect(answer.image?.spec?.image, image).to.equal(name);
      expect(answer.image?.repoTags).to.deep.equal([name]);
      expect(answer.image?.repoDigests?.[0]).to.match(/^example.org\/app@sha256:/);
      expect(String(answer.image?.size)).to.not.equal('0');
    }
    expect((await cri.call(cri.rpc.listImages, {})).images).to.have.lengthOf(1);
    const image = { image: name };
    expect((await cri.call(cri.rpc.listImages, { filter: { image } })).images).to.have.lengthOf(1);
    const none = { image: { image: 'example.org/other:1' } };
    expect((await cri.call(cri.rpc.listImages, { filter: none })).images).to.deep.equal([]);
    await cri.call(cri.rpc.removeImage, { image });
    await cri.call(cri.rpc.removeImage, { image });
    expect((await cri.call(cri.rpc.listImages, {})).images).to.deep.equal([]);
  });

  it('answer OK without an image for one that is not here', async () => {
    const answer = await cri.call(cri.rpc.imageStatus, { image: { image: name }, verbose: true });
    expect(answer.image).to.equal(null);
    expect(answer.info).to.deep.equal({});
  });

  const users: readonly (readonly [string, string | undefined, string])[] = [
    ['', undefined, ''],
    ['1002', '1002', ''],
    ['1003:1004', '1003', ''],
    ['www-data', undefined, 'www-data'],
    ['www-data:1004', undefined, 'www-data'],
    ['0', '0', ''],
  ];
  for (const [user, uid, username] of users) {
    it(`tell the user of an image that says '${user}'`, async () => {
      cri.images.add(name, user);
      const { image } = await cri.call(cri.rpc.imageStatus, { image: { image: name } });
      expect(image?.uid ? String(image.uid.value) : undefined).to.equal(uid);
      expect(image?.username).to.equal(username);
    });
  }

  it('need a name', async () => {
    for (const method of [cri.rpc.pullImage, cri.rpc.imageStatus, cri.rpc.removeImage])
      expect((await cri.failure<object>(method, {})).class).to.equal('InvalidArgument');
    expect((await cri.failure(cri.rpc.pullImage, { image: { image: 'a b' } })).class).to.equal(
      'InvalidArgument',
    );
  });

  it('pass credentials on, but never to another registry', async () => {
    const image = { image: name };
    const pulledWith = async (auth: Parameters<typeof cri.rpc.pullImage.requestSerialize>[0]['auth']) => {
      await cri.call(cri.rpc.pullImage, { image, auth: auth ?? null });
      return cri.images.credentials;
    };
    expect(await pulledWith(null)).to.equal(undefined);
    expect(await pulledWith({})).to.equal(undefined);
    expect(await pulledWith({ username: 'me', password: 'pw' })).to.include({
      username: 'me',
      password: 'pw',
    });
    const auth = Buffer.from('you:p:w').toString('base64');
    expect(await pulledWith({ auth })).to.include({ username: 'you', password: 'p:w' });
    expect(await pulledWith({ registryToken: 'tok' })).to.include({ registryToken: 'tok', username: '' });
    expect(await pulledWith({ auth, serverAddress: 'https://example.org/v2/' })).to.include({
      username: 'you',
    });
    expect(await pulledWith({ auth, serverAddress: 'https://evil.example' })).to.equal(undefined);
    const broken = await cri.failure(cri.rpc.pullImage, { image, auth: { auth: 'bm9jb2xvbg==' } });
    expect(broken.class).to.equal('InvalidArgument');
  });

  it('stop a pull that nobody waits for', async () => {
    const ended = new Promise<unknown>((resolve) => {
      cri.images.beforePull = async (ctx) => {
        caller.cancel();
        await untilDone(ctx).catch((error: unknown) => {
          resolve(error);
          throw error;
        });
      };
    });
    const caller = withCancel(background());
    const pull = cri.call(cri.rpc.pullImage, { image: { image: name } }, caller);
    await pull.then(
      () => expect.fail('the pull should have ended'),
      (error: unknown) => {
        expect(error).to.have.property('class', 'Cancelled');
      },
    );
    expect(await ended)
      .to.be.instanceOf(HerkosError)
      .with.property('class', 'Cancelled');
    expect(cri.images.list()).to.deep.equal([]);
  });

  it('tell how full the file system is', async () => {
    const { imageFilesystems, containerFilesystems } = await cri.call(cri.rpc.imageFsInfo, {});
    const [usage] = imageFilesystems;
    expect(usage?.fsId?.mountpoint).to.equal('/var/lib/herkos/images');
    expect(String(usage?.usedBytes?.value)).to.equal('4096');
    expect(String(usage?.inodesUsed?.value)).to.equal('3');
    expect(String(usage?.timestamp)).to.have.length.greaterThan(18);
    expect(containerFilesystems).to.deep.equal(imageFilesystems);
  });
}).timeout(120_000);
