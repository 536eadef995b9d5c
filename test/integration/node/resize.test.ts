import { expect } from 'chai';
import Long from 'long';

import type { runtime } from '#gen/cri/v1/api.js';

import type { VmRecord, VmShape } from '../../../lib/model/vm.js';
import { processDetails } from '../../../lib/vm/process-facts.js';
import { eventually } from '../../tools/eventually.js';
import { testAccelerator } from '../../tools/herkosd-process.js';
import { NodeFixture, containerStates } from '../../tools/node-fixture.js';
import { sandboxConfig } from '../../tools/pod-config.js';

type Resources = runtime.v1.LinuxContainerResources.$Properties;

const mebibyte = 1024 * 1024;
/** What the guest keeps of its memory for its kernel, beside what it says it has. */
const kernelShareMib = 64;
/** What a program takes in a guest that is to shrink, and what it must be left. */
const usedMib = 320;
const marginMib = 32;
/** Of what can be spared, at least so much is taken. */
const stepMib = 64;
/** What a program uses and gives up, and how much of it the host must then have back. */
const freedMib = 128;
const backMib = 80;
const namespaceOptions = { network: 0, pid: 1, ipc: 0 };

/** What the daemon tells of a pod, as far as it is looked at here. */
interface Info {
  readonly vm: Pick<VmRecord, 'source' | 'pid' | 'processStartTicks'>;
  readonly size: VmShape;
}

/** @param cpus may be a part */
function limits(mib: number, cpus: number): Resources {
  return {
    memoryLimitInBytes: Long.fromNumber(mib * mebibyte),
    cpuQuota: Long.fromNumber(cpus * 100_000),
    cpuPeriod: Long.fromNumber(100_000),
  };
}

for (const source of ['cold', 'clone'])
  describe(`the size of a pod’s VM, as its containers see it: ${source}`, () => {
    sizeTests(source);
  });

function sizeTests(source: string): void {
  let node: NodeFixture;

  before(async () => {
    const templates = source === 'clone';
    node = await NodeFixture.start({
      config: { vm: `vcpus = 1\nmemory = "256MiB"\ntemplates = ${String(templates)}` },
    });
    if (templates) await logged('a template is ready');
  });

  after(async () => {
    try {
      await node.daemon.removeAllPods();
      expect(await node.daemon.leftovers()).to.deep.equal([]);
    } finally {
      await node.stop();
    }
  });

  const start = (
    pod: string,
    name: string,
    resources: Resources = {},
    command: readonly string[] = ['sleep', '3600'],
  ): Promise<string> =>
    node.startContainer(pod, name, command, {
      linux: { resources, securityContext: { namespaceOptions } },
    });
  const logged = (text: string): Promise<void> =>
    eventually(async () => (await node.daemon.log()).includes(text));
  const infoOf = async (podSandboxId: string): Promise<Info> => {
    const { info } = await node.daemon.client.runtime('podSandboxStatus', { podSandboxId, verbose: true });
    return JSON.parse(info['info'] ?? '') as Info;
  };
  /** Runs a pod whose VM has come about as it should. */
  const run = async (more: Parameters<typeof sandboxConfig>[0]): Promise<string> => {
    const config = sandboxConfig(more);
    const { podSandboxId } = await node.daemon.client.runtime('runPodSandbox', { config });
    const { vm, size } = await infoOf(podSandboxId);
    expect(vm).to.have.property('source', source);
    expect(size).to.have.all.keys('vcpus', 'memoryMib');
    return podSandboxId;
  };
  const memoryMib = async (container: string): Promise<number> => {
    const line = await node.exec(container, 'grep', 'MemTotal', '/proc/meminfo');
    return Number(/\d+/.exec(line)?.[0]) / 1024;
  };
  const availableMib = async (container: string): Promise<number> => {
    const line = await node.exec(container, 'grep', 'MemAvailable', '/proc/meminfo');
    return Number(/\d+/.exec(line)?.[0]) / 1024;
  };
  /** Of the container and all that runs in it. */
  const memoryUsedMib = async (container: string): Promise<number> =>
    Number(await node.exec(container, 'cat', '/sys/fs/cgroup/memory.current')) / mebibyte;
  const cpus = async (container: string): Promise<number> => {
    const text = await node.exec(container, 'grep', '-c', '^processor', '/proc/cpuinfo');
    return Number(text);
  };
  const cgroup = async (container: string): Promise<string[]> => {
    const text = await node.exec(container, 'cat', '/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/cpu.max');
    return text.trim().split('\n');
  };
  const told = async (container: string): Promise<string[]> => {
    const { resources } = await node.containerStatus(container);
    return [resources?.linux?.memoryLimitInBytes, resources?.linux?.cpuQuota].map(String);
  };

  it('follows the limits of its containers, up and down', async () => {
    const pod = await run({ name: 'sizes' });
    const observer = await start(pod, 'observer');
    expect(await memoryMib(observer)).to.be.within(256 - kernelShareMib, 256);
    expect(await cpus(observer)).to.equal(1);

    const container = await start(pod, 'grows', limits(512, 2));
    expect(await memoryMib(container)).to.be.within(512 + 256 - kernelShareMib, 512 + 256);
    expect(await cpus(container)).to.equal(2);
    expect(await cgroup(container)).to.deep.equal([String(512 * mebibyte), '200000 100000']);

    await node.daemon.client.runtime('updateContainerResources', {
      containerId: container,
      linux: limits(768, 1.5),
    });
    expect(await memoryMib(container)).to.be.within(768 + 256 - kernelShareMib, 768 + 256);
    expect(await cgroup(container)).to.deep.equal([String(768 * mebibyte), '150000 100000']);
    expect(await told(container)).to.deep.equal([String(768 * mebibyte), '150000']);

    const down = { memoryLimitInBytes: Long.fromNumber(128 * mebibyte), cpuQuota: Long.fromNumber(50_000) };
    await node.daemon.client.runtime('updateContainerResources', { containerId: container, linux: down });
    expect(await cgroup(container)).to.deep.equal([String(128 * mebibyte), '50000 100000']);
    expect(await told(container)).to.deep.equal([String(128 * mebibyte), '50000']);
    await eventually(async () => (await memoryMib(observer)) <= 128 + 256);
    // Under emulation the machine keeps the processors that it has.
    if (testAccelerator === 'kvm') await eventually(async () => (await cpus(observer)) === 1);

    await node.daemon.client.runtime('removeContainer', { containerId: container });
    await eventually(async () => (await memoryMib(observer)) <= 256);
  });

  it('is that of the pod’s limits from the start, and follows them', async () => {
    const podSandboxId = await run({
      name: 'summed',
      more: { linux: { resources: limits(512, 2), securityContext: { namespaceOptions } } },
    });
    const container = await start(podSandboxId, 'within', limits(512, 2));
    expect(await memoryMib(container)).to.be.within(512 + 96 - kernelShareMib, 512 + 96);
    expect(await cpus(container)).to.equal(2);
    await node.daemon.client.runtime('updatePodSandboxResources', {
      podSandboxId,
      resources: limits(640, 2),
    });
    expect(await memoryMib(container)).to.be.within(640 + 96 - kernelShareMib, 640 + 96);
  });

  it('is no less than what a guest uses, and says so, until it uses less', async () => {
    const pod = await run({ name: 'keeps' });
    const roomy = await start(pod, 'roomy', limits(512, 1));
    const user = await start(pod, 'user');
    // Nobody reads, so what was made for the one great write stays.
    const script = `dd if=/dev/zero bs=${String(usedMib)}M count=1 | sleep 3600`;
    const eater = await node.startContainer(pod, 'eater', ['sh', '-c', script]);
    await eventually(async () => (await availableMib(user)) < 512 + 256 - kernelShareMib - usedMib);
    await node.daemon.client.runtime('removeContainer', { containerId: roomy });
    await logged('a guest keeps more or less than its pod needs');
    await eventually(async () => (await memoryMib(user)) <= 512 + 256 - stepMib);
    expect(await memoryMib(user)).to.be.greaterThan(usedMib + marginMib);
    expect(await availableMib(user)).to.be.greaterThan(marginMib / 2);
    for (const container of [user, eater])
      expect((await node.containerStatus(container)).state).to.equal(containerStates.CONTAINER_RUNNING);
    await node.daemon.client.runtime('removeContainer', { containerId: eater });
    await eventually(async () => (await memoryMib(user)) <= 256);
  });

  it('does not keep memory on the host that its containers have freed', async () => {
    const pod = await run({ name: 'frees' });
    const ownMib = async (): Promise<number> => {
      const { pid, processStartTicks } = (await infoOf(pod)).vm;
      const details = await processDetails(pid, processStartTicks);
      return (details?.memory.privateBytes ?? Number.NaN) / mebibyte;
    };
    const script = `dd if=/dev/zero bs=${String(freedMib)}M count=1 | sleep 3600`;
    const eater = await start(pod, 'eater', {}, ['sh', '-c', script]);
    await eventually(async () => (await memoryUsedMib(eater)) > freedMib);
    const most = await ownMib();
    await node.daemon.client.runtime('removeContainer', { containerId: eater });
    await eventually(async () => most - (await ownMib()) > backMib);
    // Others of the same template find in it what they found before.
    await node.exec(await start(await run({ name: 'other' }), 'c'), 'true');
  });

  it('has a limit, which an error names', async () => {
    const pod = await run({ name: 'limited' });
    let message = '';
    try {
      await start(pod, 'greedy', limits(1024 * 1024, 1));
    } catch (error) {
      message = String(error);
    }
    expect(message).to.match(/the container greedy asks for 1048576 MiB of memory.*this node gives one VM/);
  });
}
