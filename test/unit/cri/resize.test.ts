import { expect } from 'chai';
import Long from 'long';

import type { v1 } from '../../../lib/cri/api.js';
import { Harness, containerConfig } from './harness.js';

const bytes = (count: number): Long => Long.fromNumber(count);

describe('RPCs that change limits', () => {
  let cri: Harness;
  let podSandboxId: string;
  let containerId: string;
  beforeEach(async () => {
    cri = await Harness.start();
    podSandboxId = await cri.sandbox('pod');
    const resources = { cpuShares: bytes(512), cpuQuota: bytes(20_000), cpuPeriod: bytes(100_000) };
    containerId = await cri.container(podSandboxId, containerConfig({ linux: { resources } }));
  });
  afterEach(async () => {
    await cri.stop();
  });

  const resourcesOf = async (): Promise<v1.LinuxContainerResources.$Properties> => {
    const { status } = await cri.call(cri.rpc.containerStatus, { containerId });
    return status?.resources?.linux ?? {};
  };
  const numbers = async (): Promise<string[]> => {
    const { cpuShares, cpuQuota, cpuPeriod, memoryLimitInBytes } = await resourcesOf();
    return [cpuShares, cpuQuota, cpuPeriod, memoryLimitInBytes].map(String);
  };

  it('change what is named, and the status tells it', async () => {
    const linux = { memoryLimitInBytes: bytes(2 ** 40), cpuQuota: bytes(50_000), cpusetCpus: '1-2' };
    await cri.call(cri.rpc.updateContainerResources, { containerId, linux });
    expect(await numbers()).to.deep.equal(['512', '50000', '100000', String(2 ** 40)]);
    expect(await resourcesOf()).to.include({ cpusetCpus: '1-2' });
    await cri.call(cri.rpc.updateContainerResources, { containerId: containerId.slice(0, 12), linux: {} });
    expect(await numbers()).to.deep.equal(['512', '50000', '100000', String(2 ** 40)]);
  });

  it('take a limit away that is negative, or more than anybody has', async () => {
    const { updateContainerResources: update } = cri.rpc;
    await cri.call(update, { containerId, linux: { cpuQuota: bytes(-1) } });
    expect(await numbers()).to.deep.equal(['512', '-1', '100000', '0']);
    for (const none of ['-1', '-167772161', '9223372036854771712']) {
      await cri.call(update, { containerId, linux: { cpuQuota: bytes(7), memoryLimitInBytes: bytes(9) } });
      const linux = { cpuQuota: Long.fromString(none), memoryLimitInBytes: Long.fromString(none) };
      await cri.call(update, { containerId, linux });
      expect(await numbers()).to.deep.equal(['512', '-1', '100000', '-1']);
    }
  });

  it('refuse what they cannot do', async () => {
    const { updateContainerResources: update } = cri.rpc;
    expect(await cri.failure(update, { containerId: 'f'.repeat(64), linux: {} })).to.include({
      class: 'NotFound',
    });
    for (const request of [
      { containerId: '', linux: {} },
      { containerId },
      { containerId, linux: {}, windows: {} },
      { containerId, linux: { cpuShares: bytes(-2) } },
      { containerId, linux: { cpuPeriod: bytes(-2) } },
    ])
      expect(await cri.failure(update, request)).to.include({ class: 'InvalidArgument' });
    cri.pods.exit(containerId, 0);
    expect(await cri.failure(update, { containerId, linux: {} })).to.include({ class: 'FailedPrecondition' });
  });

  it('keep the sums of a pod; a message that is not there changes nothing', async () => {
    const { updatePodSandboxResources: update } = cri.rpc;
    const config = (): unknown[] => {
      const { resources, overhead } = cri.pods.sandbox(podSandboxId).config;
      return [resources, overhead];
    };
    const memory = { memoryLimitInBytes: bytes(1000) };
    await cri.call(update, { podSandboxId, resources: memory });
    expect(config()).to.deep.equal([{ memoryLimitBytes: 1000 }, undefined]);
    await cri.call(update, { podSandboxId, overhead: memory });
    expect(config()).to.deep.equal([{ memoryLimitBytes: 1000 }, { memoryLimitBytes: 1000 }]);
    await cri.call(update, { podSandboxId, resources: { cpuQuota: bytes(5) } });
    expect(config()).to.deep.equal([{ cpuQuotaUs: 5 }, { memoryLimitBytes: 1000 }]);
    // Read from a pod's cgroup that has no limits, less the overhead.
    const none = { cpuQuota: bytes(-10_001), memoryLimitInBytes: bytes(-167_772_161) };
    await cri.call(update, { podSandboxId, resources: none });
    expect(config()).to.deep.equal([{}, { memoryLimitBytes: 1000 }]);
    expect(await cri.failure(update, { podSandboxId: 'f'.repeat(64) })).to.include({ class: 'NotFound' });
  });
});
