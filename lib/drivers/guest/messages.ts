/** Requests of the pod room as messages of the contract. */
import Long from 'long';

import type { herkos } from '#gen/agent/v1/api.js';
import { HerkosError } from '../../base/errors.js';
import { isId } from '../../base/ids.js';
import type { GuestInterface } from '../../model/network.js';
import type { DeviceLocator } from '../../model/vm.js';
import { nowUnixNano } from '../../model/time.js';
import type { GuestContainer, GuestPodSetup } from '../../pod/ports.js';
import { messageBytesMax } from './limits.js';

type Message<Name extends keyof typeof herkos.agent.v1> = (typeof herkos.agent.v1)[Name] extends {
  create(properties?: infer Properties): unknown;
}
  ? Properties
  : never;

/** Room for a request's other fields beside its largest one. */
const otherFieldsBytes = 64 * 1024;

export function podSetup(setup: GuestPodSetup): Message<'SetupPodRequest'> {
  return {
    hostname: setup.hostname,
    hosts: setup.hosts,
    resolvConf: setup.resolvConf,
    interfaces: setup.interfaces.map(guestInterface),
    sysctls: { ...setup.sysctls },
    shmBytes: Long.fromNumber(setup.shmBytes, true),
    // Not of the caller: between its making and its sending nothing may wait.
    hostTimeUnixNano: Long.fromString(nowUnixNano()),
  };
}

function guestInterface(one: GuestInterface): Message<'Interface'> {
  return {
    name: one.name,
    mac: one.mac,
    cardMac: one.cardMac ?? '',
    mtu: one.mtu,
    addresses: one.addresses.map(({ ip, prefixLength }) => ({ ip, prefixLength })),
    routes: one.routes.map((route) => ({
      destination: route.destination,
      gateway: route.gateway ?? '',
      onLink: route.onLink,
      mtu: route.mtu ?? 0,
      metric: route.metric ?? 0,
    })),
  };
}

export function container(request: GuestContainer): Message<'CreateContainerRequest'> {
  return {
    containerId: ownId(request.containerId),
    layers: request.layers.map(({ device, subdirs }) => ({ device: locator(device), subdirs: [...subdirs] })),
    writableDisk: locator(request.writableDisk),
    ociConfig: fitting(request.ociConfig, 'OCI configuration'),
    stdin: request.stdin,
  };
}

/** `<slot>.<function>` of the root port becomes two numbers. */
export function locator(device: DeviceLocator): Message<'DeviceLocator'> {
  if (device.kind === 'nfit') return { nfitHandle: device.handle };
  const [, slot, portFunction] = /^(\d{1,2})\.(\d)$/.exec(device.rootPort) ?? [];
  if (slot === undefined || portFunction === undefined)
    throw new HerkosError('InvalidArgument', `'${device.rootPort}' is no place of a root port`);
  return {
    pci: {
      rootPortSlot: Number(slot),
      rootPortFunction: Number(portFunction),
      function: device.function,
    },
  };
}

/** @throws InvalidArgument for what is no full id; it would name no container of ours */
export function ownId(id: string): string {
  if (!isId(id)) throw new HerkosError('InvalidArgument', `'${id.slice(0, 80)}' is no container id`);
  return id;
}

/** @throws InvalidArgument when the bytes do not fit into a message */
export function fitting(bytes: Buffer, what: string): Buffer {
  const max = messageBytesMax - otherFieldsBytes;
  if (bytes.length > max)
    throw new HerkosError(
      'InvalidArgument',
      `the ${what} has ${String(bytes.length)} bytes; at most ${String(max)} fit`,
    );
  return bytes;
}
