import { join } from 'node:path';

import type { Context } from '../base/context.js';
import { abortable, throwIfDone } from '../base/context.js';
import { HerkosError, messageOf } from '../base/errors.js';
import { newId } from '../base/ids.js';
import { MIB } from '../base/units.js';
import type { ContainerConfig, ContainerRecord, ContainerUser } from '../model/container.js';
import { toCreated } from '../model/container-state.js';
import type { ImageRecord, LayerDevice } from '../model/image.js';
import { isReady } from '../model/sandbox-state.js';
import { noTime, nowUnixNano } from '../model/time.js';
import type { DeviceLocator } from '../model/vm.js';
import { encodeSpec } from '../wire/ocispec/codec.js';
import type { OciSeccomp, OciSpec } from '../wire/ocispec/types.js';
import { checkPath, refuseHostNamespaces } from './check-sandbox.js';
import { cleanContainer, cleanGuest } from './clean-container.js';
import { diskPath, makeDisk } from './disk.js';
import type { LivePod } from './live-pod.js';
import { hostnameOf } from './name-files.js';
import { ContainerEntry } from './registry.js';
import type { SandboxEntry } from './registry.js';
import type { PodRoom } from './room.js';
import { buildSpec } from './spec/build-spec.js';
import { capabilitiesOf } from './spec/capabilities.js';
import { defaultSeccomp } from './spec/seccomp-default.js';
import { readSeccompProfile } from './spec/seccomp-localhost.js';
import { signalNumber } from './spec/signals.js';
import { userOf } from './spec/user.js';
import { either, together } from './steps.js';
import { retry } from './teardown.js';
import { growVm, settleVm, wantedSize } from './vm-size.js';

const accountFileBytesMax = MIB;

/**
 * Makes a container in a ready pod. @throws NotFound for the sandbox or image, FailedPrecondition when the
 * sandbox is not ready, AlreadyExists for a reserved name, InvalidArgument or Unimplemented for what cannot
 * be done, ResourceExhausted when the node or the guest has no room; any failure leaves nothing behind
 */
export async function createContainer(
  room: PodRoom,
  ctx: Context,
  sandboxId: string,
  config: ContainerConfig,
): Promise<ContainerRecord> {
  const sandbox = room.registry.sandbox(sandboxId);
  await abortable(ctx, sandbox.recovered.opened);
  const live = livePodOf(sandbox);
  const scope = either(ctx, live.scope);
  const work = create(room, scope, sandbox, live, config);
  sandbox.busy.add(work);
  try {
    return await work;
  } finally {
    sandbox.busy.delete(work);
    scope.cancel();
  }
}

/** @throws FailedPrecondition when the pod does not run */
export function livePodOf(sandbox: SandboxEntry): LivePod {
  if (!isReady(sandbox.record) || sandbox.live === undefined)
    throw new HerkosError('FailedPrecondition', `the pod sandbox ${sandbox.record.id} is not ready`);
  return sandbox.live;
}

async function create(
  room: PodRoom,
  ctx: Context,
  sandbox: SandboxEntry,
  live: LivePod,
  config: ContainerConfig,
): Promise<ContainerRecord> {
  const id = newId();
  const image = room.parts.images.resolve(config.image);
  const { spec, user } = await plan(room, ctx, sandbox, live, config, image, id);
  const ociConfig = encodeSpec(spec);
  const entry = new ContainerEntry(
    {
      schemaVersion: 1,
      id,
      sandboxId: sandbox.record.id,
      config,
      imageId: image.id,
      imageRef: image.repoDigests[0] ?? image.id,
      user,
      stopSignal: signalNumber(config.stopSignal === '' ? image.run.stopSignal : config.stopSignal),
      logPath: logPathOf(sandbox.record.config.logDirectory, config.logPath),
      ociProcess: JSON.stringify(spec.process),
      createdAt: nowUnixNano(),
      startedAt: noTime,
      finishedAt: noTime,
      phase: 'creating',
    },
    sandbox,
  );
  // The pod may have stopped while the image's files were read.
  throwIfDone(ctx);
  // In one go with the registration, so that several at once do not each believe to be the last that fits.
  wantedSize(room, sandbox, live, { adding: config });
  room.registry.addContainer(entry);
  try {
    await room.ledger.putContainer(entry, { ...entry.record });
    throwIfDone(ctx);
    await build(room, ctx, entry, live, ociConfig);
    await room.parts.stores.containers.put(toCreated(entry.record));
    throwIfDone(ctx);
  } catch (error) {
    throw await undoCreate(room, entry, error);
  }
  entry.record = toCreated(entry.record);
  room.events.container('created', entry.record);
  // Containers that ended before it, as those that prepare a pod do, may have needed more.
  settleVm(room, sandbox);
  return entry.record;
}

/** Everything that can be refused before anything is done. */
async function plan(
  room: PodRoom,
  ctx: Context,
  sandbox: SandboxEntry,
  live: LivePod,
  config: ContainerConfig,
  image: ImageRecord,
  id: string,
): Promise<{ readonly spec: OciSpec; readonly user: ContainerUser }> {
  if (config.metadata.name === '')
    throw new HerkosError('InvalidArgument', 'the container’s metadata needs a name');
  refuseHostNamespaces(config.security.namespaceOptions);
  const user = await resolveUser(room, config, image);
  throwIfDone(ctx);
  const seccomp = await seccompOf(config, live);
  const request = {
    containerId: id,
    config: { ...config, security: withTarget(room, sandbox, config.security) },
    image: image.run,
    user,
    hostname: hostnameOf(sandbox.record.config),
    seccomp,
  };
  return { spec: buildSpec(request), user };
}

async function resolveUser(
  room: PodRoom,
  config: ContainerConfig,
  image: ImageRecord,
): Promise<ContainerUser> {
  const read = async (path: string): Promise<string> => {
    const content = await room.parts.images.readFile(image.id, path, accountFileBytesMax);
    return content?.toString('utf8') ?? '';
  };
  const [passwd, group] = await Promise.all([read('/etc/passwd'), read('/etc/group')]);
  return userOf(config.security, image.run.user, { passwd, group });
}

async function seccompOf(config: ContainerConfig, live: LivePod): Promise<OciSeccomp | undefined> {
  const { security } = config;
  if (security.privileged) return undefined;
  const capabilities = capabilitiesOf(security).permitted;
  switch (security.seccomp.type) {
    case 'Unconfined':
      return undefined;
    case 'RuntimeDefault':
      return defaultSeccomp(capabilities);
    case 'Localhost':
      checkPath(security.seccomp.path, 'seccomp.localhost_ref');
      return readSeccompProfile(security.seccomp.path, {
        capabilities,
        kernelRelease: live.currentGuest?.info.kernelRelease ?? '',
      });
  }
}

/** The PID namespace of another container: of this pod, and by its full id. @throws InvalidArgument */
function withTarget(
  room: PodRoom,
  sandbox: SandboxEntry,
  security: ContainerConfig['security'],
): ContainerConfig['security'] {
  const options = security.namespaceOptions;
  if (options.pid !== 'TARGET') return security;
  const target = room.registry.findContainer(options.targetId);
  if (target?.sandbox !== sandbox || target.record.phase !== 'running')
    throw new HerkosError(
      'InvalidArgument',
      'the target container, whose processes are to be shared, does not run in this pod',
    );
  return { ...security, namespaceOptions: { ...options, targetId: target.record.id } };
}

/** @throws InvalidArgument for a path that leaves the pod's log directory */
export function logPathOf(directory: string, path: string): string {
  if (directory === '' || path === '') return '';
  checkPath(`/${path}`, 'log_path');
  return join(directory, path);
}

async function build(
  room: PodRoom,
  ctx: Context,
  entry: ContainerEntry,
  live: LivePod,
  ociConfig: Buffer,
): Promise<void> {
  const { id, imageId, config } = entry.record;
  const { parts, settings } = room;
  const layers = await room.step(ctx, 'holding the image', 'diskMs', () => parts.images.hold(imageId, id));
  throwIfDone(ctx);
  const disk = diskPath(settings.stateDirectory, id);
  const [locators] = await together(
    ctx,
    (inner) =>
      withPlace(room, entry.sandbox, () =>
        room.step(inner, 'plugging the image', 'plugMs', (step) => live.vm.plugLayers(step, id, layers)),
      ),
    (inner) =>
      room.step(inner, 'making the disk', 'diskMs', (step) =>
        makeDisk(step, parts.exec, disk, settings.writableDiskBytes),
      ),
    (inner) => growVm(room, inner, entry.sandbox, live),
  );
  const writableDisk = await withPlace(room, entry.sandbox, () =>
    room.step(ctx, 'plugging the disk', 'plugMs', (step) => live.vm.plugDisk(step, id, disk)),
  );
  await room.step(ctx, 'creating the container in the guest', 'guestMs', async (step) =>
    (await live.guest(step)).createContainer(step, {
      containerId: id,
      layers: pair(layers, locators),
      writableDisk,
      ociConfig,
      stdin: config.stdin,
    }),
  );
}

/** Containers that have ended keep their devices while there are places left; then they lose them. */
async function withPlace<T>(room: PodRoom, sandbox: SandboxEntry, plug: () => Promise<T>): Promise<T> {
  // Their logs must be whole: the guest forgets what it has not been asked for.
  const ended = [...sandbox.containers].filter(
    ({ record, pump }) => record.phase === 'exited' && pump === undefined,
  );
  for (;;)
    try {
      return await plug();
    } catch (error) {
      const next = ended.shift();
      if (!(error instanceof HerkosError) || error.reason !== 'VM_PORTS_EXHAUSTED' || next === undefined)
        throw error;
      await cleanGuest(room, next);
    }
}

function pair(
  layers: readonly LayerDevice[],
  locators: readonly DeviceLocator[],
): { readonly device: DeviceLocator; readonly subdirs: readonly string[] }[] {
  return layers.map((layer, index) => {
    const device = locators[index];
    if (device === undefined)
      throw new HerkosError('Internal', 'the virtual machine plugged fewer devices than the image has');
    return { device, subdirs: layer.subdirs };
  });
}

/** Undoes a creation; what cannot be undone now is tried again in the background, and is never listed. */
async function undoCreate(room: PodRoom, entry: ContainerEntry, cause: unknown): Promise<unknown> {
  try {
    await cleanContainer(room, entry);
    return cause;
  } catch (error) {
    room.registry.releaseContainerName(entry);
    void retry(room, `removal of half-made container ${entry.record.id}`, () => cleanContainer(room, entry));
    return new HerkosError(
      cause instanceof HerkosError ? cause.class : 'Internal',
      `${messageOf(cause)} (and could not undo it yet: ${messageOf(error)})`,
      { cause },
    );
  }
}
