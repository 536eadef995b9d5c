/** The agent's side of a connection to a guest in memory. */
import type { Context } from '../../lib/base/context.js';
import { abortable } from '../../lib/base/context.js';
import { HerkosError } from '../../lib/base/errors.js';
import { MIB } from '../../lib/base/units.js';
import { nowUnixNano } from '../../lib/model/time.js';
import type { Guest } from '../../lib/pod/ports.js';
import type { OciLimits } from '../../lib/pod/spec/resources.js';
import type { Carry } from './pod-fake-ports.js';
import type { FakeVm, FakeWorld } from './pod-world.js';

/** A connection to the VM's guest, as the agent's socket gives it. */
export async function connectGuest(call: Carry, world: FakeWorld, ctx: Context, vm: FakeVm): Promise<Guest> {
  if (!vm.isAlive) throw new HerkosError('Unavailable', 'the virtual machine is gone');
  if (vm.guest.frozen)
    return abortable(
      ctx,
      new Promise<Guest>((_resolve, reject) => {
        const drop = (): void => {
          vm.connections.delete(drop);
          reject(new HerkosError('Unavailable', 'the connection to the guest is lost'));
        };
        vm.connections.add(drop);
      }),
    );
  const died = vm.exited.then(() => {
    throw new HerkosError('Unavailable', 'the virtual machine is gone');
  });
  await abortable(ctx, Promise.race([vm.resumed, died]));
  const connection = new AbortController();
  const lost = new Promise<void>((resolve) => {
    connection.signal.addEventListener('abort', () => {
      resolve();
    });
  });
  const drop = (): void => {
    vm.connections.delete(drop);
    connection.abort(new HerkosError('Unavailable', 'the connection to the guest is lost'));
  };
  vm.connections.add(drop);
  return guestOf(call, world, vm, connection.signal, lost, drop);
}

/** Does its effect as the call of this name, unless the guest hangs or a failure is due. */
type Use = <T>(name: string, ctx: Context, effect: () => T) => Promise<T>;

function guestOf(
  call: Carry,
  world: FakeWorld,
  vm: FakeVm,
  connection: AbortSignal,
  lost: Promise<void>,
  drop: () => void,
): Guest {
  const state = vm.guest;
  /** A context that also ends with the connection. */
  const link = (ctx: Context): Context => ({ ...ctx, signal: AbortSignal.any([ctx.signal, connection]) });
  const use: Use = (name, ctx, effect) => {
    const linked = link(ctx);
    if (state.frozen) return abortable(linked, new Promise(() => undefined));
    return abortable(linked, call(`guest.${name}`, linked, effect));
  };
  return {
    info: {
      agentVersion: '1',
      kernelRelease: '6.1.0-fake',
      ociRuntimeVersion: '1',
      bootMs: 1,
      memoryBytes: 1,
      cpus: 1,
    },
    lost,
    ...machineCalls(use, vm),
    ...containerCalls(use, world, vm),
    watchExits: (ctx) => state.watchExits(link(ctx)),
    readOutput: (ctx, id, stream, from) => state.container(id).stream(stream).read(link(ctx), from),
    close: () => {
      drop();
      return Promise.resolve();
    },
  };
}

function machineCalls(
  use: Use,
  vm: FakeVm,
): Pick<Guest, 'setupPod' | 'onlineCpus' | 'memory' | 'adjustClock' | 'shutdown'> {
  const state = vm.guest;
  return {
    setupPod: (ctx, setup) =>
      use('setupPod', ctx, () => {
        if (state.refuseSetup !== undefined) throw state.refuseSetup;
        state.setup = setup;
      }),
    onlineCpus: (ctx, count) =>
      use('onlineCpus', ctx, () => {
        state.cpus = count;
      }),
    memory: (ctx) =>
      use('memory', ctx, () => {
        const totalBytes = vm.taken.memoryMib * MIB;
        return { totalBytes, availableBytes: Math.max(0, totalBytes - vm.usesMib * MIB) };
      }),
    adjustClock: (ctx, byNanos) =>
      use('adjustClock', ctx, () => {
        state.aheadNanos += byNanos;
        return String(BigInt(nowUnixNano()) + state.aheadNanos);
      }),
    shutdown: (ctx) =>
      use('shutdown', ctx, () => {
        vm.die();
      }),
  };
}

type ContainerCalls = Pick<
  Guest,
  | 'createContainer'
  | 'startContainer'
  | 'signalContainer'
  | 'removeContainerGone'
  | 'listContainers'
  | 'exec'
  | 'updateContainer'
>;

function containerCalls(use: Use, world: FakeWorld, vm: FakeVm): ContainerCalls {
  const state = vm.guest;
  return {
    createContainer: (ctx, request) =>
      use('createContainer', ctx, () => {
        state.create(request);
      }),
    startContainer: (ctx, id) =>
      use('startContainer', ctx, () => {
        state.container(id).start();
      }),
    signalContainer: (ctx, id, signal) =>
      use('signalContainer', ctx, () => {
        state.container(id).signal(signal);
      }),
    removeContainerGone: (ctx, id) =>
      use('removeContainer', ctx, () => {
        state.remove(id);
      }),
    listContainers: (ctx) => use('listContainers', ctx, () => state.list()),
    exec: (ctx, request) =>
      use('exec', ctx, () => {
        world.execs.push({
          containerId: request.containerId,
          process: JSON.parse(request.ociProcess.toString()) as unknown,
        });
        return world.execResult;
      }),
    updateContainer: (ctx, id, resources) =>
      use('updateContainer', ctx, () => {
        state.container(id).update(JSON.parse(resources.toString()) as OciLimits);
      }),
  };
}
