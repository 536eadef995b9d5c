import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { silentLogger } from '../../../lib/base/logger.js';
import { countedRegistry } from '../../../lib/observe/counted-registry.js';
import { Metrics } from '../../../lib/observe/metrics.js';
import type { NodeView } from '../../../lib/observe/node-view.js';
import type { LogLine } from '../../fakes/cni-logger.js';
import { MemoryLogger } from '../../fakes/cni-logger.js';
import { projectRoot } from '../../arch/project.js';
import type { Sample } from '../../tools/metrics-text.js';
import { parseMetrics, valueOf } from '../../tools/metrics-text.js';

const emptyNode: NodeView = {
  isReady: () => Promise.resolve(true),
  sandboxes: () => [],
  containers: () => [],
  vms: () => [],
  pool: () => [],
  templates: () => Promise.resolve([]),
  ksm: () => Promise.resolve(undefined),
};

describe('metrics', () => {
  let metrics: Metrics;

  beforeEach(() => {
    metrics = new Metrics({ version: '1.2.3', logger: silentLogger, ofProcess: false });
  });

  const read = async (view?: Partial<NodeView>): Promise<Sample[]> => {
    if (view !== undefined) metrics.watch({ ...emptyNode, ...view });
    return parseMetrics(await metrics.text());
  };

  it('are text that a scraper reads, and all begin alike', async () => {
    const whole = new Metrics({ version: '1.2.3', logger: silentLogger });
    whole.watch(emptyNode);
    expect(whole.contentType).to.equal('text/plain; version=0.0.4; charset=utf-8');
    const samples = parseMetrics(await whole.text());
    for (const { name } of samples) expect(name).to.match(/^herkos_[a-z0-9_]+$/);
    expect(valueOf(samples, 'herkos_build_info', { version: '1.2.3' })).to.equal(1);
    expect(valueOf(samples, 'herkos_process_resident_memory_bytes')).to.be.greaterThan(0);
    expect(valueOf(samples, 'herkos_nodejs_eventloop_lag_max_seconds')).to.be.a('number');
  });

  it('are all in the manual, and the manual names no others', async () => {
    const manual = readFileSync(join(projectRoot, 'docs/operating.md'), 'utf8');
    const named = [...manual.matchAll(/^\| `(herkos_\w+)` \| (\w+) \|/gm)].map(
      ([, name = '', type = '']) => `${name} ${type}`,
    );
    const types = [...(await metrics.text()).matchAll(/^# TYPE (\S+ \w+)$/gm)].map(([, type]) => type);
    expect(named.sort()).to.deep.equal(types.sort());
  });

  it('show counters before their first event, so that it is seen as one', async () => {
    const samples = await read();
    for (const source of ['pool', 'clone', 'cold'])
      expect(valueOf(samples, 'herkos_pod_start_seconds_count', { source })).to.equal(0);
    for (const role of ['pod', 'pool'])
      expect(valueOf(samples, 'herkos_vm_unexpected_exits_total', { role })).to.equal(0);
    expect(valueOf(samples, 'herkos_image_pull_bytes_total')).to.equal(0);
  });

  it('tell how pods started, by source and phase', async () => {
    const phases = (vm: number, total: number) => [
      { phase: 'vm', ms: vm },
      { phase: 'total', ms: total },
    ];
    metrics.events.podStarted('clone', phases(60, 250));
    metrics.events.podStarted('clone', phases(70, 350));
    metrics.events.podStarted('cold', phases(900, 4200));
    metrics.events.podNotStarted('ResourceExhausted');
    metrics.events.podVmEnded();
    const samples = await read();
    const start = 'herkos_pod_start_seconds';
    expect(valueOf(samples, `${start}_count`, { source: 'clone' })).to.equal(2);
    expect(valueOf(samples, `${start}_sum`, { source: 'clone' })).to.be.closeTo(0.6, 1e-9);
    expect(valueOf(samples, `${start}_bucket`, { source: 'clone', le: '0.3' })).to.equal(1);
    expect(valueOf(samples, `${start}_count`, { source: 'cold' })).to.equal(1);
    const phase = 'herkos_pod_start_phase_seconds';
    expect(valueOf(samples, `${phase}_sum`, { source: 'clone', phase: 'vm' })).to.be.closeTo(0.13, 1e-9);
    expect(samples.some(({ labels }) => labels['phase'] === 'total')).to.equal(false);
    expect(valueOf(samples, 'herkos_pod_start_failures_total', { code: 'ResourceExhausted' })).to.equal(1);
    expect(valueOf(samples, 'herkos_vm_unexpected_exits_total', { role: 'pod' })).to.equal(1);
  });

  it('tell of templates, the pool, requests and pulls', async () => {
    const { events } = metrics;
    events.templateBuilt('a', 4000, true);
    events.templateBuilt('a', 1000, false);
    events.templateRefused('a');
    events.cloneReplaced('a');
    events.poolAsked('a', true);
    events.poolAsked('a', false);
    events.poolAsked('a', false);
    events.poolFilled('a');
    events.poolFillFailed();
    events.poolDropped('a', 'memory');
    events.poolDropped('a', 'ended');
    events.rpcDone('RuntimeService', 'Version', 'OK', 2);
    events.rpcDone('RuntimeService', 'Version', 'Internal', 3);
    events.pullDone('OK', 3000);
    events.pulled(1000);
    events.pulled(24);
    const samples = await read();
    const domain = 'a';
    const expected: readonly (readonly [string, Record<string, string>, number])[] = [
      ['template_build_seconds_sum', { domain, result: 'ok' }, 4],
      ['template_build_seconds_count', { domain, result: 'failed' }, 1],
      ['template_refusals_total', { domain }, 1],
      ['clone_replacements_total', { domain }, 1],
      ['pool_requests_total', { domain, result: 'hit' }, 1],
      ['pool_requests_total', { domain, result: 'miss' }, 2],
      ['pool_fills_total', { domain }, 1],
      ['pool_fill_failures_total', {}, 1],
      ['pool_drops_total', { domain, reason: 'memory' }, 1],
      ['vm_unexpected_exits_total', { role: 'pool' }, 1],
      ['rpc_total', { service: 'RuntimeService', method: 'Version', code: 'OK' }, 1],
      ['rpc_total', { service: 'RuntimeService', method: 'Version', code: 'Internal' }, 1],
      ['rpc_seconds_count', { service: 'RuntimeService', method: 'Version' }, 2],
      ['image_pull_seconds_sum', { result: 'ok' }, 3],
      ['image_pull_bytes_total', {}, 1024],
    ];
    for (const [name, labels, value] of expected)
      expect(valueOf(samples, `herkos_${name}`, labels), name).to.equal(value);
  });

  it('show how the node is now, and forget what is not any more', async () => {
    const vm = { domain: 'a', role: 'pod', source: 'clone', state: 'running' } as const;
    const before = await read({
      isReady: () => Promise.resolve(false),
      sandboxes: () => [{ phase: 'ready' }, { phase: 'ready' }, { phase: 'notready' }],
      containers: () => [{ phase: 'running' }],
      vms: () => [vm, vm, { ...vm, role: 'pool', source: 'pool', state: 'starting' }],
      pool: () => [
        { domain: 'a', ready: 1, target: 2 },
        { domain: 'a', ready: 2, target: 2 },
      ],
      templates: () =>
        Promise.resolve([
          { domain: 'a', uses: 3, builtAtMs: Date.now() - 60_000, memoryBytesUsed: 100 },
          { domain: 'a', uses: 4, builtAtMs: Date.now(), memoryBytesUsed: 20 },
        ]),
    });
    const expected: readonly (readonly [string, Record<string, string>, number])[] = [
      ['node_ready', {}, 0],
      ['sandboxes', { state: 'ready' }, 2],
      ['sandboxes', { state: 'notready' }, 1],
      ['sandboxes', { state: 'stopping' }, 0],
      ['containers', { state: 'running' }, 1],
      ['containers', { state: 'exited' }, 0],
      ['vms', { domain: 'a', role: 'pod', source: 'clone', state: 'running' }, 2],
      ['vms', { domain: 'a', role: 'pool', source: 'pool', state: 'starting' }, 1],
      ['pool_ready', { domain: 'a' }, 3],
      ['pool_target', { domain: 'a' }, 4],
      ['templates', { domain: 'a' }, 2],
      ['template_uses', { domain: 'a' }, 7],
      ['template_memory_bytes', { domain: 'a' }, 120],
    ];
    for (const [name, labels, value] of expected)
      expect(valueOf(before, `herkos_${name}`, labels), name).to.equal(value);
    expect(valueOf(before, 'herkos_template_age_seconds', { domain: 'a' })).to.be.within(60, 600);
    const after = await read({});
    expect(valueOf(after, 'herkos_node_ready')).to.equal(1);
    expect(valueOf(after, 'herkos_sandboxes', { state: 'ready' })).to.equal(0);
    expect(after.filter(({ labels }) => labels['domain'] === 'a')).to.deep.equal([]);
  });

  it('tell what merging pages costs and gives', async () => {
    const ksm = {
      domain: 'a',
      state: 'slow',
      vms: 2,
      pagesShared: 10,
      pagesSharing: 1000,
      pagesVolatile: 5,
      fullScans: 7,
      pagesScanned: 50_000,
      cpuMs: 1500,
    } as const;
    const samples = await read({ ksm: () => Promise.resolve(ksm) });
    const states = samples.filter(({ name }) => name === 'herkos_ksm_state');
    expect(states.filter(({ value }) => value === 1).map(({ labels }) => labels)).to.deep.equal([
      { domain: 'a', state: 'slow' },
    ]);
    expect(states).to.have.length(6);
    expect(valueOf(samples, 'herkos_ksm_vms', { domain: 'a' })).to.equal(2);
    for (const [kind, value] of Object.entries({ shared: 10, sharing: 1000, volatile: 5 }))
      expect(valueOf(samples, 'herkos_ksm_pages', { kind })).to.equal(value);
    // This kernel does not say what it gained.
    expect(valueOf(samples, 'herkos_ksm_gained_bytes')).to.equal(4_096_000);
    expect(valueOf(samples, 'herkos_ksm_scanner_cpu_seconds_total')).to.equal(1.5);
    // What the kernel counts is shown as it is, however often it is asked.
    const again = await read({
      ksm: () => Promise.resolve({ ...ksm, generalProfitBytes: -64, cpuMs: 1600 }),
    });
    expect(valueOf(again, 'herkos_ksm_scanner_cpu_seconds_total')).to.equal(1.6);
    expect(valueOf(again, 'herkos_ksm_pages_scanned_total')).to.equal(50_000);
    expect(valueOf(again, 'herkos_ksm_gained_bytes')).to.equal(-64);
    const off = await read({ ksm: () => Promise.resolve(undefined) });
    expect(valueOf(off, 'herkos_ksm_vms')).to.equal(undefined);
  });

  it('leave out what cannot be looked at, rather than show it as it was', async () => {
    const lines: LogLine[] = [];
    metrics = new Metrics({ version: '1', logger: new MemoryLogger(lines), ofProcess: false });
    const pool = [{ domain: 'a', ready: 1, target: 1 }];
    expect(valueOf(await read({ pool: () => pool }), 'herkos_pool_ready', { domain: 'a' })).to.equal(1);
    const samples = await read({
      sandboxes: () => [{ phase: 'ready' }],
      pool: () => {
        throw new Error('the pool is broken');
      },
      templates: () => Promise.reject(new Error('no such file')),
    });
    expect(valueOf(samples, 'herkos_pool_ready', { domain: 'a' })).to.equal(undefined);
    expect(valueOf(samples, 'herkos_sandboxes', { state: 'ready' })).to.equal(1);
    expect(lines.map(({ fields }) => fields['part'])).to.have.members(['pool', 'templates']);
    const next = await read();
    expect(valueOf(next, 'herkos_scrape_failures_total', { part: 'pool' })).to.be.greaterThan(0);
  });

  it('are looked up once for all who ask at the same time', async () => {
    let looks = 0;
    metrics.watch({
      ...emptyNode,
      isReady: () => {
        looks += 1;
        return Promise.resolve(true);
      },
    });
    const all = await Promise.all(Array.from({ length: 20 }, () => metrics.text()));
    expect(looks).to.equal(1);
    expect(new Set(all).size).to.equal(1);
    await metrics.text();
    expect(looks).to.equal(2);
  });

  it('leave most of the time to other work, however often they are asked for', async () => {
    const beganMs: number[] = [];
    const lookMs = 5;
    metrics.watch({
      ...emptyNode,
      isReady: async () => {
        beganMs.push(performance.now());
        // Without a timer, which may be late.
        for (const endMs = performance.now() + lookMs; performance.now() < endMs;) await Promise.resolve();
        return true;
      },
    });
    for (let count = 0; count < 4; count += 1) await metrics.text();
    // A slow machine makes them longer, never shorter.
    for (const [index, atMs] of beganMs.slice(1).entries())
      expect(atMs - (beganMs[index] ?? 0)).to.be.greaterThan(10 * lookMs);
  });

  it('tell only so many domains apart, and write any name as one label', async () => {
    for (let index = 0; index < 1000; index += 1) metrics.events.templateRefused(`tenant-${String(index)}`);
    metrics.events.templateRefused('tenant-0');
    const samples = (await read()).filter(({ name }) => name === 'herkos_template_refusals_total');
    expect(samples).to.have.length(257);
    expect(valueOf(samples, 'herkos_template_refusals_total', { domain: 'tenant-0' })).to.equal(2);
    expect(valueOf(samples, 'herkos_template_refusals_total', { domain: '(others)' })).to.equal(744);
    const odd = 'a"} 1\nherkos_forged{x="\\';
    const pool = [{ domain: odd, ready: 1, target: 1 }];
    const forged = await read({ pool: () => pool });
    expect(forged.some(({ name }) => name === 'herkos_forged')).to.equal(false);
    expect(forged.filter(({ name }) => name === 'herkos_pool_ready')).to.have.length(1);
  });
});

describe('a counted registry', () => {
  it('is the same registry, and tells what has come, also of a transfer that broke', async () => {
    let bytes = 0;
    const error = new Error('reset');
    const registry = countedRegistry(
      {
        open: () => ({
          fetchManifest: () => Promise.reject(error),
          async *fetchBlob() {
            yield await Promise.resolve(Buffer.alloc(3));
            yield Buffer.alloc(4);
            throw error;
          },
        }),
      },
      (part) => {
        bytes += part;
      },
    );
    const source = registry.open(undefined);
    const name = { host: 'h', repository: 'r' } as never;
    const sizes: number[] = [];
    let caught: unknown;
    try {
      for await (const part of source.fetchBlob(background(), name, {} as never)) sizes.push(part.length);
    } catch (thrown) {
      caught = thrown;
    }
    expect(caught).to.equal(error);
    expect(sizes).to.deep.equal([3, 4]);
    expect(bytes).to.equal(7);
  });
});
