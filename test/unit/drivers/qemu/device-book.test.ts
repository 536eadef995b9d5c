import { expect } from 'chai';
import fc from 'fast-check';

import { DeviceBook, bookSchema, locatorOf } from '../../../../lib/drivers/qemu/device-book.js';
import type { DeviceEntry } from '../../../../lib/drivers/qemu/device-book.js';
import {
  plugDisk,
  plugCpu,
  plugFiles,
  plugMemory,
  plugNic,
  plugSerial,
  removeBackends,
} from '../../../../lib/drivers/qemu/device-commands.js';

const limits = { portCount: 4, slotCount: 2 };
const MIB = 1024 * 1024;

describe('device book', () => {
  it('gives every entry a place of its own, and free places again', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.constantFrom('disk', 'nvdimm', 'nic', 'layers', 'memory'), fc.nat(5))),
        (steps) => {
          const book = new DeviceBook(limits);
          for (const [kind, victim] of steps) {
            const entry = book.entries[victim];
            if (entry !== undefined && victim > 2) book.remove(entry);
            try {
              book.add(kind, ['k'], 'o');
            } catch (error) {
              expect(error).to.have.property('class', 'ResourceExhausted');
            }
            const places = book.entries.map(
              ({ kind: of, index }) => `${of === 'nvdimm' ? 'slot' : 'port'}${String(index)}`,
            );
            expect(new Set(places).size).to.equal(places.length);
            expect(book.entries.filter(({ kind: of }) => of === 'nvdimm').length).to.be.at.most(
              limits.slotCount,
            );
            expect(book.entries.filter(({ kind: of }) => of !== 'nvdimm').length).to.be.at.most(
              limits.portCount,
            );
          }
        },
      ),
    );
  });

  it('is read back as it was written', () => {
    const book = new DeviceBook(limits);
    book.add('layers', ['a', 'b'], 'owner').state = 'plugged';
    book.add('disk', ['/d'], 'owner');
    const { entries } = bookSchema.parse(JSON.parse(book.toJson()));
    expect(new DeviceBook(limits, entries).entries).to.deep.equal(book.entries);
  });

  it('does not share what is still coming or already leaving', () => {
    const book = new DeviceBook(limits);
    const entry = book.add('layers', ['a'], 'owner');
    expect(book.plugged('layers', 'a')).to.equal(undefined);
    entry.state = 'plugged';
    expect(book.plugged('layers', 'a')).to.equal(entry);
    expect(book.plugged('nvdimm', 'a')).to.equal(undefined);
    entry.state = 'leaving';
    expect(book.plugged('layers', 'a')).to.equal(undefined);
  });

  it('names the place that the guest sees', () => {
    const book = new DeviceBook({ portCount: 12, slotCount: 2 });
    for (let port = 0; port < 9; port += 1) book.add('disk', [String(port)], 'o');
    const layers = book.add('layers', ['a', 'b'], 'o');
    expect(locatorOf(layers, 1)).to.deep.equal({ kind: 'pci', rootPort: '5.1', function: 1 });
    book.add('nvdimm', ['a'], 'o');
    expect(locatorOf(book.add('nvdimm', ['b'], 'o'), 0)).to.deep.equal({ kind: 'nfit', handle: 2 });
  });
});

describe('device commands', () => {
  const book = new DeviceBook({ portCount: 12, slotCount: 2 });
  const files = ['/a', '/b', '/c'].map((path) => ({ path, sizeBytes: 2 * MIB }));

  it('open layers for reading only and plug function 0 last', () => {
    const commands = plugFiles(book.add('layers', ['a', 'b', 'c'], 'o'), files);
    const backends = commands.filter(({ command }) => command === 'object-add').map(({ args }) => args);
    expect(backends).to.have.length(3);
    for (const backend of backends) expect(backend).to.include({ readonly: true, share: true });
    const functions = commands
      .filter(({ command }) => command === 'device_add')
      .map(({ args }) => args['addr']);
    expect(functions).to.deep.equal(['0x0.2', '0x0.1', '0x0.0']);
  });

  it('plug an NVDIMM unarmed and read-only', () => {
    const commands = plugFiles(book.add('nvdimm', ['a'], 'o'), files.slice(0, 1));
    expect(commands[0]?.args).to.include({ readonly: true, share: true });
    expect(commands[1]?.args).to.include({ driver: 'nvdimm', unarmed: true, slot: 0 });
  });

  it('give disk errors to the guest instead of stopping the VM', () => {
    const [, device] = plugDisk(book.add('disk', ['/d'], 'o'), '/d', true);
    expect(device?.args).to.include({ werror: 'report', rerror: 'report' });
  });

  it('never have QEMU write zeroes where holes in files are feigned', () => {
    const [node, device] = plugDisk(book.add('disk', ['/d'], 'o'), '/d', false);
    expect(node?.args)
      .to.deep.include({ discard: 'ignore' })
      .and.to.have.nested.include({ 'file.discard': 'ignore' });
    expect(device?.args).to.include({ discard: false, 'write-zeroes': false });
    const [, other] = plugDisk(book.add('disk', ['/e'], 'o'), '/e', true);
    expect(other?.args).to.include({ discard: true, 'write-zeroes': true });
  });

  it('plug memory that is reserved, merged and dumped nowhere', () => {
    const [backend, device] = plugMemory(book.add('memory', ['512'], 'o'), 512);
    expect(backend?.args).to.include({ size: 512 * MIB, reserve: false, merge: false, dump: false });
    expect(backend?.args).not.to.have.any.keys('share', 'mem-path');
    expect(device?.args).to.include({ driver: 'virtio-mem-pci', 'block-size': 2 * MIB });
  });

  it('never plug a serial port in the place of the agent’s', () => {
    const [chardev, device] = plugSerial(book.add('serial', ['n', '/s'], 'o'), 'n', '/s');
    expect(device?.args).to.include({ driver: 'virtserialport', bus: 'serial.0', nr: 2 });
    expect(chardev?.args['backend']).to.have.nested.include({ 'data.server': false, 'data.reconnect': 1 });
  });

  it('remove every backend they made', () => {
    const entries: [DeviceEntry, readonly { readonly args: Readonly<Record<string, unknown>> }[]][] = [];
    const layers = book.add('layers', ['x', 'y', 'z'], 'o');
    entries.push([layers, plugFiles(layers, files)]);
    const disk = book.add('disk', ['/e'], 'o');
    entries.push([disk, plugDisk(disk, '/e', true)]);
    const nic = book.add('nic', ['m'], 'o');
    entries.push([nic, plugNic(nic, 'tap0', 'm')]);
    const serial = book.add('serial', ['name', '/socket'], 'o');
    entries.push([serial, plugSerial(serial, 'name', '/socket')]);
    const memory = book.add('memory', ['512'], 'o');
    entries.push([memory, plugMemory(memory, 512)]);
    const cpu = book.addAt(1, 'cpu', ['vcpu1'], 'o');
    entries.push([cpu, plugCpu(cpu, 'type', { 'core-id': 1 })]);
    for (const [entry, commands] of entries) {
      const used = commands.flatMap(({ args }) => [
        args['memdev'],
        args['drive'],
        args['netdev'],
        args['chardev'],
      ]);
      const removed = removeBackends(entry).map(({ args }) => args['id'] ?? args['node-name']);
      expect(removed).to.have.members(used.filter((name) => name !== undefined));
    }
  });
});
