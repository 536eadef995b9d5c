/** A QEMU that has devices and processors, and a guest that lets them go or does not. */
import type { Socket } from 'node:net';

import type { QmpRequest } from './qmp-qemu.js';
import { StandInQemu, answer, refuse } from './qmp-qemu.js';

export interface FakeMachineOptions {
  /** Places for processors; one is taken from the start. */
  readonly slots?: number;
}

export class FakeMachine {
  readonly qemu: StandInQemu;
  /** Ids of what is plugged. */
  readonly devices = new Set<string>();
  readonly backends = new Set<string>();
  /** Commands, in order, with the id of what they are about. */
  readonly asked: string[] = [];
  /** A guest that keeps what it is asked for, until `letGo`. */
  isDeaf = false;
  /** The next command is done, and said to have failed. */
  refuseNext = false;
  /** Called before each command is done; what it waits for, QEMU waits for. */
  onCommand: (command: string) => Promise<void> | void = () => undefined;
  readonly #slots: number;
  /** By place, the id of the processor there. */
  readonly #processors = new Map<number, string>();
  readonly #sockets = new Set<Socket>();
  #tail = Promise.resolve();

  constructor({ slots = 4 }: FakeMachineOptions = {}) {
    this.#slots = slots;
    this.qemu = new StandInQemu((request, socket) => {
      this.#sockets.add(socket);
      // One after the other, as QEMU does.
      this.#tail = this.#tail.then(() => this.#take(request, socket));
    });
  }

  /** The guest is done with a device, asked or not. */
  letGo(id: string): void {
    if (!this.devices.delete(id)) return;
    for (const [place, processor] of this.#processors) if (processor === id) this.#processors.delete(place);
    const event = { event: 'DEVICE_DELETED', data: { device: id, path: `/machine/peripheral/${id}` } };
    for (const socket of this.#sockets) socket.write(`${JSON.stringify(event)}\r\n`);
  }

  async #take(request: QmpRequest, socket: Socket): Promise<void> {
    const { execute, id } = request;
    const about = typeof request.arguments['id'] === 'string' ? request.arguments['id'] : '';
    const line = about === '' ? execute : `${execute} ${about}`;
    this.asked.push(line);
    await this.onCommand(line);
    try {
      const value = this.#do(execute, about, request.arguments);
      if (this.refuseNext) throw new Error('done, but refused');
      answer(socket, id, value);
    } catch (error) {
      this.refuseNext = false;
      refuse(socket, id, String(error));
    }
    if (execute === 'device_del' && !this.isDeaf) this.letGo(about);
  }

  #do(command: string, id: string, args: QmpRequest['arguments']): unknown {
    switch (command) {
      case 'object-add':
        this.backends.add(id);
        return {};
      case 'object-del':
        if (!this.backends.delete(id)) throw new Error('no such object');
        return {};
      case 'device_add':
        this.#plug(id, args);
        return {};
      case 'device_del':
        if (!this.devices.has(id)) throw new Error('no such device');
        return {};
      case 'qom-list':
        return [...this.devices].map((name) => ({ name, type: 'child<device>' }));
      case 'query-hotpluggable-cpus':
        return this.#places();
      default:
        throw new Error(`the fake does not know ${command}`);
    }
  }

  #plug(id: string, args: QmpRequest['arguments']): void {
    if (this.devices.has(id)) throw new Error('duplicate id');
    this.devices.add(id);
    if (typeof args['core-id'] === 'number') this.#processors.set(args['core-id'], id);
  }

  /** The last one first, as QEMU lists them. */
  #places(): unknown[] {
    return Array.from({ length: this.#slots }, (_, place) => {
      const id = this.#processors.get(place);
      const path = place === 0 ? '/machine/unattached/device[0]' : id && `/machine/peripheral/${id}`;
      const props = { 'socket-id': 0, 'core-id': place, 'thread-id': 0 };
      return { type: 'cpu', props, ...(path === undefined ? {} : { 'qom-path': path }) };
    }).reverse();
  }
}
