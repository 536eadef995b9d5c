import { herkos } from '#gen/admin/v1/api.js';
import { admin } from '#gen/admin/v1/services.js';

import { formatBytes } from '../../lib/base/units.js';
import { outline } from './inspect.js';
import { beginsId, theOnly } from './lookup.js';
import { plain } from './messages.js';
import { shownAge, shownId } from './output.js';
import type { Session } from './session.js';

type Vm = herkos.admin.v1.Vm;

const { Role } = herkos.admin.v1.Vm;

export async function listVmsCommand(session: Session): Promise<void> {
  const vms = await list(session);
  session.output.result(
    vms.map((vm) => plain(herkos.admin.v1.Vm, vm)),
    () => {
      session.output.table(
        ['VM', 'POD', 'SOURCE', 'DOMAIN', 'PID', 'UID', 'ACCEL', 'VCPUS', 'MEMORY', 'PSS', 'STARTED'],
        vms.map((vm) => [
          shownId(vm.id),
          user(vm),
          vm.source,
          vm.domain,
          some(vm.pid, String),
          String(vm.uid),
          vm.accelerator,
          some(vm.vcpus, String),
          some(vm.memoryMib, (mib) => `${String(mib)} MiB`),
          some(Number(vm.pssBytes), formatBytes),
          shownAge(vm.startedAt),
        ]),
      );
    },
  );
}

/** @param text the beginning of the id of a machine or its pod, or the pod's name, with or without namespace */
export async function inspectVmCommand(session: Session, text: string): Promise<void> {
  const { id } = find(await list(session), text);
  const { json } = await session.quick(admin.inspectVm, { id });
  const value = JSON.parse(json) as unknown;
  session.output.result(value, () => {
    for (const line of outline(value)) session.output.line(line);
  });
}

/** By pod, so that machines of no pod stand together. */
async function list(session: Session): Promise<Vm[]> {
  const { vms } = await session.slow(admin.listVms, {});
  return vms
    .map((vm) => herkos.admin.v1.Vm.create(vm))
    .sort((a, b) => a.role - b.role || compare(user(a), user(b)) || compare(a.id, b.id));
}

/** The pod that has it; `pool` and `template` are no names of pods: those have a namespace. */
function user(vm: Vm): string {
  switch (vm.role) {
    case Role.ROLE_POOL:
      return 'pool';
    case Role.ROLE_TEMPLATE:
      return 'template';
    default:
      return vm.podName === '' ? shownId(vm.podSandboxId) : podName(vm);
  }
}

function podName(vm: Vm): string {
  return `${vm.podNamespace}/${vm.podName}`;
}

function find(vms: readonly Vm[], text: string): Vm {
  const named = vms.filter((vm) => vm.podName !== '' && (vm.podName === text || podName(vm) === text));
  const found =
    named.length > 0 ? named : vms.filter((vm) => beginsId(text, vm.id) || beginsId(text, vm.podSandboxId));
  const sort = { what: 'VM', hasNames: true, list: 'vm ls' };
  return theOnly(text, found, sort, (vm) => `${user(vm)} (${shownId(vm.id)})`);
}

/** What the daemon does not know is 0. */
function some(value: number, show: (value: number) => string): string {
  return value === 0 ? '-' : show(value);
}

function compare(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
