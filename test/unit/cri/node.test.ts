import { expect } from 'chai';

import { v1 } from '../../../lib/cri/api.js';
import { Harness } from './harness.js';

describe('node RPCs', () => {
  let cri: Harness;
  beforeEach(async () => {
    cri = await Harness.start();
  });
  afterEach(async () => {
    await cri.stop();
  });

  it('Version is what the kubelet accepts', async () => {
    const answer = await cri.call(cri.rpc.version, { version: '' });
    expect(answer).to.include({ version: '0.1.0', runtimeName: 'herkos', runtimeApiVersion: 'v1' });
    expect(answer.runtimeVersion).to.match(/^\d+\.\d+\.\d+$/);
  });

  it('Status tells two conditions and the features of both handlers', async () => {
    const answer = await cri.call(cri.rpc.status, {});
    expect(answer.status?.conditions?.map(({ type, status }) => [type, status])).to.deep.equal([
      ['RuntimeReady', true],
      ['NetworkReady', true],
    ]);
    expect(answer.runtimeHandlers.map(({ name }) => name)).to.deep.equal(['', 'herkos']);
    expect(answer.runtimeHandlers[0]?.features).to.include({ recursiveReadOnlyMounts: false });
    expect(answer.features).to.include({ supplementalGroupsPolicy: true, mountOptions: false });
    expect(answer.info).to.deep.equal({});
    const { info } = await cri.call(cri.rpc.status, { verbose: true });
    expect(JSON.parse(info['config'] ?? '')).to.deep.equal({ stateDir: '/var/lib/herkos' });
  });

  it('Status tells why the node is not ready, and never fails', async () => {
    cri.node.answer = new Error('no accelerator');
    cri.pods.network = { ready: false, reason: 'NetworkPluginNotReady', message: 'no CNI configuration' };
    const { status } = await cri.call(cri.rpc.status, {});
    const [runtime, network] = status?.conditions ?? [];
    expect(runtime).to.include({ status: false, reason: 'RuntimeCheckFailed', message: 'no accelerator' });
    expect(network).to.include({ status: false, reason: 'NetworkPluginNotReady' });
  });

  it('RuntimeConfig names the cgroup driver', async () => {
    const asked = async (): Promise<unknown> =>
      (await cri.call(cri.rpc.runtimeConfig, {})).linux?.cgroupDriver;
    expect(await asked()).to.equal(v1.CgroupDriver.CGROUPFS);
    cri.node.cgroupDriver = 'systemd';
    expect(await asked()).to.equal(v1.CgroupDriver.SYSTEMD);
  });

  it('UpdateRuntimeConfig succeeds', async () => {
    const networkConfig = { podCidr: '10.9.0.0/24' };
    await cri.call(cri.rpc.updateRuntimeConfig, { runtimeConfig: { networkConfig } });
    await cri.call(cri.rpc.updateRuntimeConfig, {});
  });
}).timeout(120_000);
