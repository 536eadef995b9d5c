import type { Gauge } from 'prom-client';

import type { ContainerPhase } from '../model/container.js';
import type { SandboxPhase } from '../model/sandbox.js';
import { DomainLabels } from './domain-label.js';
import type { Makers } from './makers.js';
import type { KsmView, NodeView, VmView } from './node-view.js';
import { ksmStates } from './node-view.js';

/** Some metrics of how things are, and how they come by their values. */
export interface StatePart {
  readonly name: string;
  readonly metrics: readonly { reset(): void }[];
  /** Looks, and returns what sets the metrics; they were reset before that. */
  readonly look: (view: NodeView) => Promise<() => void> | (() => void);
}

/** Phases that clients may see, and so those that are counted. */
const sandboxPhases: readonly SandboxPhase[] = ['ready', 'stopping', 'notready', 'removing'];
const containerPhases: readonly ContainerPhase[] = ['created', 'starting', 'running', 'exited', 'removing'];
const second = 1_000;
const pageBytes = 4_096;

export function stateParts(make: Makers): StatePart[] {
  return [readiness, pods, vms, pool, templates, ksm].map((part) => part(make));
}

function readiness(make: Makers): StatePart {
  const ready = make.gauge('node_ready', '1 when pods can be run.');
  return {
    name: 'readiness',
    metrics: [ready],
    look: async (view) => {
      const isReady = await view.isReady();
      return () => {
        ready.set(isReady ? 1 : 0);
      };
    },
  };
}

function pods(make: Makers): StatePart {
  const sandboxes = make.gauge('sandboxes', 'Pods, by state.', 'state');
  const containers = make.gauge('containers', 'Containers, by state.', 'state');
  const count = <T extends string>(
    target: Gauge<'state'>,
    states: readonly T[],
    all: readonly { readonly phase: T }[],
  ): void => {
    const counts = new Map(states.map((state) => [state, 0]));
    for (const { phase } of all) counts.set(phase, (counts.get(phase) ?? 0) + 1);
    for (const [state, number] of counts) target.set({ state }, number);
  };
  return {
    name: 'pods',
    metrics: [sandboxes, containers],
    look: (view) => () => {
      count(sandboxes, sandboxPhases, view.sandboxes());
      count(containers, containerPhases, view.containers());
    },
  };
}

function vms(make: Makers): StatePart {
  const labels = new DomainLabels();
  const count = make.gauge(
    'vms',
    'Virtual machines: whom they are for, where they came from, how they are.',
    'domain',
    'role',
    'source',
    'state',
  );
  return {
    name: 'vms',
    metrics: [count],
    look: (view) => () => {
      // Counted before they are told, which costs more: there may be thousands of a few kinds.
      const kinds = new Map<string, { readonly vm: VmView; number: number }>();
      for (const vm of view.vms()) {
        const key = [vm.domain, vm.role, vm.source, vm.state].join(' ');
        const kind = kinds.get(key);
        if (kind === undefined) kinds.set(key, { vm, number: 1 });
        else kind.number += 1;
      }
      for (const { vm, number } of kinds.values()) count.inc({ ...vm, domain: labels.of(vm.domain) }, number);
    },
  };
}

function pool(make: Makers): StatePart {
  const labels = new DomainLabels();
  const ready = make.gauge('pool_ready', 'VMs that wait for a pod.', 'domain');
  const target = make.gauge('pool_target', 'VMs that should wait for a pod.', 'domain');
  return {
    name: 'pool',
    metrics: [ready, target],
    look: (view) => () => {
      for (const kind of view.pool()) {
        const domain = labels.of(kind.domain);
        ready.inc({ domain }, kind.ready);
        target.inc({ domain }, kind.target);
      }
    },
  };
}

function templates(make: Makers): StatePart {
  const labels = new DomainLabels();
  const count = make.gauge('templates', 'Templates that VMs can be cloned from.', 'domain');
  const uses = make.gauge('template_uses', 'VMs that were made of the templates of now.', 'domain');
  const age = make.gauge('template_age_seconds', 'Age of the oldest template.', 'domain');
  const bytes = make.gauge('template_memory_bytes', 'Memory that templates really take.', 'domain');
  return {
    name: 'templates',
    metrics: [count, uses, age, bytes],
    look: async (view) => {
      const all = await view.templates();
      return () => {
        const oldestMs = new Map<string, number>();
        for (const template of all) {
          const domain = labels.of(template.domain);
          count.inc({ domain });
          uses.inc({ domain }, template.uses);
          bytes.inc({ domain }, template.memoryBytesUsed);
          oldestMs.set(domain, Math.min(oldestMs.get(domain) ?? Infinity, template.builtAtMs));
        }
        for (const [domain, atMs] of oldestMs) age.set({ domain }, Math.max(0, Date.now() - atMs) / second);
      };
    },
  };
}

function ksm(make: Makers): StatePart {
  const state = make.gauge('ksm_state', '1 for what the scanner does now.', 'domain', 'state');
  const count = make.gauge('ksm_vms', 'VMs whose pages may be merged.', 'domain');
  const pages = make.gauge('ksm_pages', 'Pages, of the whole host, as the kernel counts them.', 'kind');
  const gained = make.gauge('ksm_gained_bytes', 'Memory of the whole host that merging gave back.');
  const cpu = make.counter(
    'ksm_scanner_cpu_seconds_total',
    'Processor time of the kernel’s scanner since the boot.',
  );
  const scanned = make.counter(
    'ksm_pages_scanned_total',
    'Pages that the scanner has looked at since the boot.',
  );
  const scans = make.counter('ksm_full_scans_total', 'Passes over all mergeable pages since the boot.');
  const set = (now: KsmView): void => {
    const { domain } = now;
    for (const one of ksmStates) state.set({ domain, state: one }, one === now.state ? 1 : 0);
    count.set({ domain }, now.vms);
    pages.set({ kind: 'shared' }, now.pagesShared);
    pages.set({ kind: 'sharing' }, now.pagesSharing);
    pages.set({ kind: 'volatile' }, now.pagesVolatile);
    gained.set(now.generalProfitBytes ?? now.pagesSharing * pageBytes);
    cpu.inc((now.cpuMs ?? 0) / second);
    scanned.inc(now.pagesScanned ?? 0);
    scans.inc(now.fullScans);
  };
  return {
    name: 'ksm',
    metrics: [state, count, pages, gained, cpu, scanned, scans],
    look: async (view) => {
      const now = await view.ksm();
      return () => {
        if (now !== undefined) set(now);
      };
    },
  };
}
