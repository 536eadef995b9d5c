import type { Config } from '../../lib/config/load.js';
import type { VmRecord } from '../../lib/model/vm.js';
import type { NodeView, VmView } from '../../lib/observe/node-view.js';
import type { PodService } from '../../lib/pod/pods.js';
import { bytesUsed, roleOf } from '../../lib/vm/describe.js';
import type { KsmScanner } from '../../lib/vm/ksm/scanner.js';
import type { VmManager } from '../../lib/vm/manager.js';
import type { HerkosNodeInfo } from './node-info.js';

export interface NodeViewParts {
  readonly config: Config;
  readonly info: HerkosNodeInfo;
  readonly pods: PodService;
  readonly vms: VmManager;
  readonly ksm: KsmScanner;
}

/**
 * The node as its metrics see it: from memory, but for a stat of each template's file and, where a domain
 * opted in, a dozen small files of the kernel. It starts nothing, and what a VM uses is not measured: for
 * that the kernel walks page tables, which `herkosctl vm ls` has it do on demand.
 */
export function nodeView({ config, info, pods, vms, ksm }: NodeViewParts): NodeView {
  const [ksmDomain] = config.vm.ksm_domains;
  return {
    isReady: async () => (await info.health()).ready,
    sandboxes: () => pods.sandboxes(),
    containers: () => pods.containers(),
    vms: () => vms.records.map((record) => vmView(vms, record)),
    pool: () => vms.pool.report(),
    templates: () =>
      Promise.all(
        vms.templates.known.map(async ({ template, uses }) => ({
          domain: template.domain,
          uses,
          builtAtMs: template.builtAt,
          memoryBytesUsed: await bytesUsed(template.memory.path),
        })),
      ),
    ksm: async () => (ksmDomain === undefined ? undefined : { ...(await ksm.report()), domain: ksmDomain }),
  };
}

function vmView(vms: VmManager, record: VmRecord): VmView {
  const { id, domain, source, pid } = record;
  const isRunning = vms.running(id) !== undefined;
  return {
    domain,
    role: roleOf(record),
    source,
    state: isRunning ? 'running' : pid === 0 ? 'starting' : 'lost',
  };
}
