/** The one place where concrete drivers meet the rooms. */
import { constants } from 'node:fs';
import { access } from 'node:fs/promises';
import { join } from 'node:path';

import type { Context } from '../../lib/base/context.js';
import { background, throwIfDone, withCancel } from '../../lib/base/context.js';
import { HerkosError, messageOf } from '../../lib/base/errors.js';
import type { Exec, Launcher } from '../../lib/base/exec.js';
import type { Logger } from '../../lib/base/logger.js';
import type { Config } from '../../lib/config/load.js';
import { hostHelperOf } from '../../lib/config/node.js';
import { adminService } from '../../lib/cri/admin-service.js';
import { criServices } from '../../lib/cri/cri-services.js';
import { SocketServer } from '../../lib/cri/server.js';
import { HostCgroups } from '../../lib/drivers/cgroup/cgroup-factory.js';
import { CniNetwork } from '../../lib/drivers/cni/cni-network.js';
import { CniNetnsFactory } from '../../lib/drivers/cni/netns.js';
import { SealedTemplateMemories } from '../../lib/drivers/memfd/template-memories.js';
import { AgentConnector } from '../../lib/drivers/guest/connector.js';
import { AgentRehearsal } from '../../lib/drivers/guest/rehearsal.js';
import { QemuDriver } from '../../lib/drivers/qemu/driver.js';
import { loadGuestFiles } from '../../lib/drivers/qemu/guest-files.js';
import { findProgram } from '../../lib/drivers/qemu/program.js';
import { HttpRegistryClient } from '../../lib/drivers/registry/registry-client.js';
import { refuseTwin } from '../../lib/drivers/starter/instance-twin.js';
import { ProgramStarter } from '../../lib/drivers/starter/program-starter.js';
import { FileRecordStore } from '../../lib/drivers/store/record-store.js';
import { WorkerLayerConverter } from '../../lib/image/convert/converter.js';
import { ImageService } from '../../lib/image/image-service.js';
import type { ContainerRecord } from '../../lib/model/container.js';
import type { ImageRecord } from '../../lib/model/image.js';
import type { SandboxRecord } from '../../lib/model/sandbox.js';
import type { VmRecord } from '../../lib/model/vm.js';
import { systemLogFiles } from '../../lib/pod/output/files.js';
import { PodService } from '../../lib/pod/pods.js';
import type { RecordStore } from '../../lib/pod/ports.js';
import { systemKsmFs } from '../../lib/vm/ksm/ksm-fs.js';
import { KsmHost } from '../../lib/vm/ksm/ksm-host.js';
import { KsmScanner } from '../../lib/vm/ksm/scanner.js';
import { processFacts } from '../../lib/vm/process-facts.js';
import { availableMemoryBytes } from '../../lib/vm/node-memory.js';
import { TemplateFiles } from '../../lib/vm/template/template-files.js';
import { VmInspector } from '../../lib/vm/describe.js';
import { VmManager } from '../../lib/vm/manager.js';
import { sizeFor } from '../../lib/vm/sizing.js';
import { prepareDirectories } from './directories.js';
import { openMetrics } from './metrics.js';
import type { NodeMetrics } from './metrics.js';
import { HerkosNodeInfo } from './node-info.js';
import { nodeView } from './node-view.js';
import {
  cniSettings,
  guestDirectory,
  imageSettings,
  podSettings,
  qemuSettings,
  registrySettings,
  vmSettings,
} from './settings.js';

const drainMs = 20_000;

export interface RunningNode {
  /** Lets running calls come to their end, then lets go of everything; pods go on. */
  close(): Promise<void>;
}

interface Identified {
  readonly id: string;
  readonly schemaVersion: number;
}

/** Wraps each store; the tests of recovery die between two writes with it. */
export type StoreDecorator = <T extends Identified>(store: RecordStore<T>, name: string) => RecordStore<T>;

/** Builds the parts, recovers what an earlier daemon left, and serves. */
export async function startNode(
  written: Config,
  log: Logger,
  decorate: StoreDecorator = (store) => store,
): Promise<RunningNode> {
  // First: an address that somebody else has is found out before anything is touched.
  const metrics = await openMetrics(written, log.with({ room: 'observe' }));
  const config = await prepareDirectories(written);
  const { hostHelper, exec } = await hostParts(config, log);
  await beAlone(exec, config.node.instance);
  const store = storeFactory(config, log, decorate);
  const { images, converter, registry } = imageParts(config, log, store, metrics);
  const { vms, driver, ksm } = await vmParts(config, log, { store, exec, hostHelper }, metrics);
  const pods = podRoom(config, log, { store, exec }, images, vms, metrics);
  const info = new HerkosNodeInfo(config);

  // Reading the system's certificates takes a while, better now than in somebody's pull.
  await registry.prepare();
  // Images first: containers hold theirs again while the pods are loaded; what nobody holds is collected then.
  await images.load();
  await pods.load();
  await ksm.start();
  const parts = { pods, images, node: info, log: log.with({ room: 'cri' }), observer: metrics.observer };
  const server = await SocketServer.listen(
    background(),
    config.node.socket,
    [...criServices(parts), adminService(parts, new VmInspector(vms))],
    log,
  );
  log.info('serving', { socket: config.node.socket });
  metrics.watch(nodeView({ config, info, pods, vms, ksm }));
  const life = withCancel(background());
  void info.learn(life, (ctx) => driver.probe(ctx), log);
  const recovered = recover(life, log, { pods, images, vms });
  return {
    async close(): Promise<void> {
      metrics.notServing();
      life.cancel();
      await server.close(drainMs);
      await images.close();
      await pods.close();
      await recovered;
      await vms.release();
      await ksm.close();
      await converter.close();
      await registry.destroy();
      await metrics.close();
      await exec.close();
    },
  };
}

interface Recovering {
  readonly pods: PodService;
  readonly images: ImageService;
  readonly vms: VmManager;
}

/** Looks after what an earlier daemon left, then gets ready for new pods. Never throws. */
async function recover(ctx: Context, log: Logger, { pods, images, vms }: Recovering): Promise<void> {
  try {
    await pods.recover();
    throwIfDone(ctx);
    await images.collectGarbage();
    await vms.warmUp(ctx);
  } catch (error) {
    if (!ctx.signal.aborted) log.error('the recovery did not come to its end', { error: messageOf(error) });
  }
}

type StoreFactory = <T extends Identified & { readonly schemaVersion: 1 }>(name: string) => RecordStore<T>;

function storeFactory(config: Config, log: Logger, decorate: StoreDecorator): StoreFactory {
  return <T extends Identified & { readonly schemaVersion: 1 }>(name: string) =>
    decorate(
      new FileRecordStore<T>({
        directory: join(config.node.state_dir, name),
        schemaVersion: 1,
        logger: log.with({ store: name }),
      }),
      name,
    );
}

function imageParts(config: Config, log: Logger, store: StoreFactory, metrics: NodeMetrics) {
  const registry = new HttpRegistryClient(registrySettings(config));
  const converter = new WorkerLayerConverter();
  const images = new ImageService({
    settings: imageSettings(config),
    registry: metrics.countPulls(registry),
    converter,
    store: store<ImageRecord>('images'),
    logger: log.with({ room: 'image' }),
    observer: metrics.observer,
  });
  return { images, converter, registry };
}

interface HostParts {
  readonly store: StoreFactory;
  readonly exec: Exec & Launcher;
  readonly hostHelper: string;
}

async function vmParts(
  config: Config,
  log: Logger,
  { store, exec, hostHelper }: HostParts,
  { observer }: NodeMetrics,
) {
  const logger = log.with({ room: 'vm' });
  const guest = await loadGuestFiles(guestDirectory(config));
  await findProgram(config.vm.qemu);
  const driver = new QemuDriver({ settings: qemuSettings(config, guest), exec, logger });
  const { instance } = config.node;
  const settings = vmSettings(config);
  const ksm = new KsmScanner({
    host: new KsmHost(systemKsmFs, join(config.node.state_dir, 'ksm.json')),
    domains: config.vm.ksm_domains,
    records: () => vms.records,
    logger,
  });
  const vms: VmManager = new VmManager({
    settings,
    driver,
    netns: new CniNetnsFactory(exec, instance, hostHelper),
    cgroups: new HostCgroups({ defaultParent: `/${instance}` }),
    store: store<VmRecord>('vms'),
    files: new TemplateFiles({
      ...settings.templates,
      exec,
      memories: new SealedTemplateMemories({ instance, hostHelper }),
    }),
    rehearsal: new AgentRehearsal(),
    availableBytes: availableMemoryBytes,
    bytesUsed: async ({ pid, processStartTicks }) =>
      (await processFacts(pid, processStartTicks))?.pssBytes ?? 0,
    onChange: () => void ksm.update(),
    logger,
    observer,
  });
  return { vms, driver, ksm };
}

function podRoom(
  config: Config,
  log: Logger,
  { store, exec }: Pick<HostParts, 'store' | 'exec'>,
  images: ImageService,
  vms: VmManager,
  { observer }: NodeMetrics,
): PodService {
  const { sizing } = vmSettings(config);
  return new PodService({
    stores: {
      sandboxes: store<SandboxRecord>('sandboxes'),
      containers: store<ContainerRecord>('containers'),
    },
    vms,
    network: new CniNetwork(exec, cniSettings(config), log.with({ room: 'network' })),
    images,
    guests: new AgentConnector(),
    exec,
    files: systemLogFiles,
    sizing: (demand) => sizeFor(sizing, demand),
    settings: podSettings(config),
    log: log.with({ room: 'pod' }),
    observer,
  });
}

/** Before any state is read, which would remove what another daemon is about to finish. */
async function beAlone(exec: ProgramStarter, instance: string): Promise<void> {
  await exec.lock();
  await refuseTwin(background(), instance, exec.pid);
}

/** No pod can start without the helper. */
async function hostParts(
  { node }: Config,
  logger: Logger,
): Promise<{ hostHelper: string; exec: ProgramStarter }> {
  const hostHelper = hostHelperOf(node);
  await access(hostHelper, constants.X_OK).catch((error: unknown) => {
    const what = `there is no program ${hostHelper}; build it with hack/quickstart, or set host_helper in [node]`;
    throw new HerkosError('FailedPrecondition', what, { cause: error });
  });
  const lockFile = join(node.state_dir, 'lock');
  return { hostHelper, exec: new ProgramStarter(hostHelper, { instance: node.instance, lockFile, logger }) };
}
