import { expect } from 'chai';

import { eventually } from '../../tools/eventually.js';
import { HerkosdProcess } from '../../tools/herkosd-process.js';
import type { Sample } from '../../tools/metrics-text.js';
import { parseMetrics, valueOf } from '../../tools/metrics-text.js';
import { NodeFixture } from '../../tools/node-fixture.js';

/** Where the daemon says that it serves: it had asked for any port that is free. */
async function addressOf(daemon: HerkosdProcess): Promise<string> {
  const addresses = [...(await daemon.log()).matchAll(/serving metrics .*address=(127\.0\.0\.1:\d+)/g)];
  const address = addresses.at(-1)?.[1];
  if (address === undefined) throw new Error('the log names no address of metrics');
  return address;
}

async function get(daemon: HerkosdProcess, path: string): Promise<{ status: number; text: string }> {
  const response = await fetch(`http://${await addressOf(daemon)}${path}`);
  return { status: response.status, text: await response.text() };
}

describe('the metrics of a node', () => {
  let node: NodeFixture;

  before(async () => {
    node = await NodeFixture.start({ config: { metrics: 'address = "127.0.0.1:0"' } });
    await eventually(async () => (await node.daemon.log()).includes('a template is ready'));
  });

  after(async () => node.stop());

  const scrape = async (): Promise<{ samples: Sample[]; text: string }> => {
    const { status, text } = await get(node.daemon, '/metrics');
    expect(status).to.equal(200);
    return { samples: parseMetrics(text), text };
  };

  it('follow a pod from its image to its end, and never name it', async () => {
    const { samples: before } = await scrape();
    expect(valueOf(before, 'herkos_image_pull_seconds_count', { result: 'ok' })).to.equal(1);
    expect(valueOf(before, 'herkos_image_pull_bytes_total')).to.be.greaterThan(100_000);
    expect(
      valueOf(before, 'herkos_template_build_seconds_count', { domain: 'default', result: 'ok' }),
    ).to.equal(1);
    expect(valueOf(before, 'herkos_template_memory_bytes', { domain: 'default' })).to.be.greaterThan(
      1_000_000,
    );
    expect(valueOf(before, 'herkos_pod_start_seconds_count', { source: 'clone' })).to.equal(0);
    const usesBefore = valueOf(before, 'herkos_template_uses', { domain: 'default' }) ?? 0;

    const pod = await node.runSandbox('secret-name');
    const container = await node.startContainer(pod, 'secret-container');
    const { samples: during, text } = await scrape();
    for (const [name, labels, value] of [
      ['node_ready', {}, 1],
      ['pod_start_seconds_count', { source: 'clone' }, 1],
      ['sandboxes', { state: 'ready' }, 1],
      ['containers', { state: 'running' }, 1],
      ['vms', { domain: 'default', role: 'pod', source: 'clone', state: 'running' }, 1],
      ['templates', { domain: 'default' }, 1],
      ['template_uses', { domain: 'default' }, usesBefore + 1],
      ['rpc_total', { service: 'RuntimeService', method: 'RunPodSandbox', code: 'OK' }, 1],
      ['rpc_seconds_count', { service: 'RuntimeService', method: 'StartContainer' }, 1],
    ] as const)
      expect(valueOf(during, `herkos_${name}`, labels), name).to.equal(value);
    const total = valueOf(during, 'herkos_pod_start_seconds_sum', { source: 'clone' }) ?? 0;
    for (const phase of ['record', 'vm', 'network', 'nic', 'guest', 'setup']) {
      const sum = valueOf(during, 'herkos_pod_start_phase_seconds_sum', { source: 'clone', phase });
      expect(sum, phase).to.be.within(Number.MIN_VALUE, total);
    }
    for (const { name } of during) expect(name).to.match(/^herkos_/);
    for (const secret of [pod, pod.slice(0, 12), container, container.slice(0, 12), 'secret', node.image])
      expect(text).not.to.include(secret);

    for (const pid of await node.vmPids()) process.kill(pid, 'SIGKILL');
    await eventually(async () => {
      const { samples } = await scrape();
      return (
        valueOf(samples, 'herkos_vm_unexpected_exits_total', { role: 'pod' }) === 1 &&
        valueOf(samples, 'herkos_containers', { state: 'exited' }) === 1 &&
        valueOf(samples, 'herkos_sandboxes', { state: 'notready' }) === 1
      );
    });
    await node.daemon.removeAllPods();
    const { samples: after } = await scrape();
    expect(valueOf(after, 'herkos_sandboxes', { state: 'notready' })).to.equal(0);
    expect(after.filter(({ name }) => name === 'herkos_vms')).to.deep.equal([]);
  });

  it('are served as long as the daemon serves, and only to one daemon at an address', async () => {
    expect(await get(node.daemon, '/healthz')).to.deep.equal({ status: 200, text: 'ok\n' });
    expect((await get(node.daemon, '/')).status).to.equal(404);
    const address = await addressOf(node.daemon);
    const second = await HerkosdProcess.prepare({ config: { metrics: `address = "${address}"` } });
    try {
      second.spawn();
      await second.ended();
      expect(await second.log())
        .to.include(`cannot serve metrics on ${address}`)
        .and.to.include('metrics.address');
      expect(await second.leftovers()).to.deep.equal([]);
    } finally {
      await second.cleanUp();
    }
    expect((await get(node.daemon, '/healthz')).status).to.equal(200);
    await node.daemon.stop();
    const error: unknown = await fetch(`http://${address}/healthz`).catch((thrown: unknown) => thrown);
    expect((error as Error).cause).to.have.property('code', 'ECONNREFUSED');
  });
});
