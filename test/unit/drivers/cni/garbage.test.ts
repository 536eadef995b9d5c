import { readdir, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { expect } from 'chai';

import { background } from '../../../../lib/base/context.js';
import { behave } from '../../../fakes/cni-plugin.js';
import { Scene } from './scene.js';

describe('collecting the networks of unknown sandboxes', () => {
  let scene: Scene;

  afterEach(() => scene.dispose());

  it('goes on when one cannot be given back, and keeps that one', async () => {
    scene = await Scene.create();
    const network = scene.network();
    const requests = [scene.request(), scene.request(), scene.request()];
    for (const request of requests) await network.attach(background(), request);
    const [stuck, free, known] = requests.map(({ sandboxId }) => sandboxId);
    await scene.plugins.add('first', {
      DEL: `[ "$CNI_CONTAINERID" != ${stuck ?? ''} ] || { ${behave.garbage}; }`,
    });
    const error: unknown = await scene
      .network()
      .collectGarbage(background(), new Set([known ?? '']))
      .catch((thrown: unknown) => thrown);
    expect(String(error)).to.include('1 network attachments are left over');
    const left = await readdir(join(scene.settings.stateDir, 'attachments'));
    expect(left)
      .to.have.members([`${stuck ?? ''}.json`, `${known ?? ''}.json`])
      .and.to.not.include(`${free ?? ''}.json`);
  });

  it('removes half-written records of a crash, not those being written', async () => {
    scene = await Scene.create();
    const request = scene.request();
    await scene.network().attach(background(), request);
    const path = scene.attachmentPath(request.sandboxId);
    await writeFile(`${path}.old.tmp`, '{');
    await utimes(`${path}.old.tmp`, 1, 1);
    await writeFile(`${path}.new.tmp`, '{');
    await scene.network().collectGarbage(background(), new Set([request.sandboxId]));
    const left = await readdir(join(scene.settings.stateDir, 'attachments'));
    expect(left).to.have.members([`${request.sandboxId}.json`, `${request.sandboxId}.json.new.tmp`]);
  });

  it('tells the plugins of CNI 1.1 what is valid, when nobody else uses the network', async () => {
    scene = await Scene.create({ soleRuntime: true });
    await scene.configure('10-net.conflist', { cniVersion: '1.1.0' });
    const [network, known, unknown] = [scene.network(), scene.request(), scene.request()];
    await network.attach(background(), known);
    await network.attach(background(), unknown);
    await network.collectGarbage(background(), new Set([known.sandboxId]));
    const calls = (await scene.plugins.calls()).filter(({ command }) => command === 'GC');
    expect(calls.map(({ plugin }) => plugin)).to.deep.equal(['first', 'second']);
    expect(calls[0]?.input['cni.dev/valid-attachments']).to.deep.equal([
      { containerID: known.sandboxId, ifname: 'eth0' },
    ]);
  });

  it('never calls GC otherwise', async () => {
    scene = await Scene.create();
    const collect = async (cniVersion: string, soleRuntime: boolean, disableGC: boolean): Promise<void> => {
      await scene.configure('10-net.conflist', { cniVersion, disableGC });
      Object.assign(scene.settings, { soleRuntime });
      await scene.network().collectGarbage(background(), new Set());
    };
    await collect('1.1.0', false, false);
    await collect('1.0.0', true, false);
    await collect('1.1.0', true, true);
    expect(await scene.plugins.calls()).to.deep.equal([]);
    await collect('1.1.0', true, false);
    expect(await scene.plugins.sequence()).to.deep.equal(['first GC', 'second GC']);
  });

  it('tolerates plugins that do not know GC', async () => {
    scene = await Scene.create({ soleRuntime: true });
    await scene.configure('10-net.conflist', { cniVersion: '1.1.0' });
    await scene.plugins.add('first', { GC: behave.error(4, 'unknown CNI_COMMAND: GC') });
    await scene.network().collectGarbage(background(), new Set());
    expect(await scene.plugins.sequence()).to.deep.equal(['first GC', 'second GC']);
    expect(scene.logger.lines.filter(({ level }) => level === 'warn')).to.deep.equal([]);
  });
});
