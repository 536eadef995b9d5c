import Long from 'long';

import { defaultDomain } from '../model/vm.js';
import { admin } from './admin-progress.js';
import { requiredName } from './checks.js';
import type { BuildPhase, TemplateFacts, VmFacts } from './ports.js';

const { Phase } = admin.TemplateProgress;
const { Role } = admin.Vm;
const nanosecondsPerMs = 1_000_000;

const phases: Readonly<Record<BuildPhase, admin.TemplateProgress.Phase>> = {
  preparing: Phase.PHASE_PREPARING,
  booting: Phase.PHASE_BOOTING,
  saving: Phase.PHASE_SAVING,
  verifying: Phase.PHASE_VERIFYING,
};

const roles: Readonly<Record<VmFacts['role'], admin.Vm.Role>> = {
  pod: Role.ROLE_POD,
  pool: Role.ROLE_POOL,
  template: Role.ROLE_TEMPLATE,
};

export function encodePhase(phase: BuildPhase): admin.TemplateProgress.Phase {
  return phases[phase];
}

export function encodeTemplate(facts: TemplateFacts): admin.Template.$Properties {
  const { id, domain, shape, accelerator, builtAtMs, uses, memoryBytesUsed, buildPhase } = facts;
  return {
    id,
    domain,
    ...shape,
    accelerator,
    builtAt: unixNano(builtAtMs),
    uses: Long.fromNumber(uses, true),
    memoryBytesUsed: Long.fromNumber(memoryBytesUsed, true),
    ...(buildPhase === undefined ? {} : { buildPhase: encodePhase(buildPhase) }),
  };
}

/** @param pod its name, when the pod that has the machine is known */
export function encodeVm(
  { record, role, size, process }: VmFacts,
  pod: { readonly namespace: string; readonly name: string } | undefined,
): admin.Vm.$Properties {
  return {
    id: record.id,
    role: roles[role],
    podSandboxId: record.sandboxId,
    podNamespace: pod?.namespace ?? '',
    podName: pod?.name ?? '',
    source: record.source,
    domain: record.domain,
    // What a record says of a process that is gone could be read as somebody else's.
    pid: process === undefined ? 0 : record.pid,
    uid: record.uid,
    accelerator: record.accelerator,
    vcpus: size?.vcpus ?? 0,
    memoryMib: size?.memoryMib ?? 0,
    pssBytes: Long.fromNumber(process?.pssBytes ?? 0, true),
    startedAt: unixNano(process?.startedAtMs ?? 0),
  };
}

/** A domain is a tenant's name, and goes into logs and digests. Empty: the one of all who have none. */
export function decodeDomain(domain: string): string {
  return domain === '' ? defaultDomain : requiredName(domain, 'domain');
}

function unixNano(ms: number): Long {
  return Long.fromNumber(ms).multiply(nanosecondsPerMs);
}
