import { expect } from 'chai';

import { commandLine, optionValue, processName } from '../../../../lib/drivers/qemu/command-line.js';
import type { MachineSpec } from '../../../../lib/drivers/qemu/command-line.js';
import { firstCardCommands, firstCardMac } from '../../../../lib/drivers/qemu/first-card.js';
import { jailCommand } from '../../../../lib/drivers/qemu/jail.js';
import { RunDirectory } from '../../../../lib/drivers/qemu/run-dir.js';
import { portCountMax, portPlace } from '../../../../lib/drivers/qemu/topology.js';

const id = 'a1'.repeat(32);
const settings = {
  portCount: 10,
  tbSizeMib: 32,
  layerDevice: 'virtio-pmem',
  console: false,
  vcpusMax: 8,
  memoryMibMax: 1000,
} as const;

const spec: MachineSpec = {
  processName: processName('test', id),
  shape: { vcpus: 2, memoryMib: 256 },
  accelerator: 'tcg',
  guest: { kernel: '/k', initramfs: '/i', root: '/r', commandLine: 'quiet', digest: 'x' },
  guestRootBytes: 4 * 1024 * 1024,
  paths: new RunDirectory('/run/herkos').pathsOf(id),
  memory: { kind: 'own' },
};

/** The values of every use of an option. */
function values(args: readonly string[], option: string): string[] {
  return args.filter((_, at) => args[at - 1] === option);
}

describe('qemu command line', () => {
  it('denies what QEMU never needs', () => {
    const args = commandLine(settings, spec);
    expect(values(args, '-sandbox')).to.deep.equal([
      'on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny',
    ]);
    expect(args).to.include.members(['-nodefaults', '-no-user-config', '-no-reboot', '-S']);
    expect(values(args, '-machine')[0]).to.include('mem-merge=off').and.include('dump-guest-core=off');
    expect(args.filter((arg) => arg.includes('netdev') || arg.includes('usb-'))).to.deep.equal([]);
  });

  it('lets pages be merged only where it was told to', () => {
    const machine = values(commandLine(settings, { ...spec, mergeable: true }), '-machine')[0];
    expect(machine).to.include('mem-merge=on').and.not.include('mem-merge=off');
  });

  it('opens the guest root for reading only and tells the guest where it is', () => {
    const args = commandLine(settings, spec);
    expect(values(args, '-object')).to.include(
      'memory-backend-file,id=root,mem-path=/r,size=4194304,share=on,readonly=on',
    );
    expect(values(args, '-append')).to.deep.equal(['quiet swiotlb=noforce herkos.root=pci0:2.0']);
  });

  it('puts the root ports at fixed places', () => {
    const ports = values(commandLine(settings, spec), '-device').filter((arg) => arg.startsWith('pcie'));
    expect(ports.map((port) => /addr=([^,]+)/.exec(port)?.[1])).to.deep.equal([
      '4.0',
      '4.1',
      '4.2',
      '4.3',
      '4.4',
      '4.5',
      '4.6',
      '4.7',
      '5.0',
      '5.1',
    ]);
    const slots = Array.from({ length: portCountMax }, (_, index) => portPlace(index).slot);
    // Decimal and hexadecimal readers must see the same place.
    expect(Math.max(...slots)).to.be.lessThan(10);
  });

  it('gives a template and its clones the same machine', () => {
    const memory = { path: '/t/memory', inode: 1 };
    const image = { memory, statePath: '/t/state', directory: '/t', gid: 7 };
    const template = commandLine(settings, { ...spec, memory: { kind: 'template', image } });
    const clone = commandLine(settings, { ...spec, memory: { kind: 'clone', image } });
    const asTemplate = clone.map((word) => word.replace('share=off', 'share=on'));
    expect(asTemplate.filter((word) => word !== '-incoming' && word !== 'defer')).to.deep.equal(template);
    expect(values(clone, '-incoming')).to.deep.equal(['defer']);
    for (const args of [template, clone, commandLine(settings, spec)])
      expect(args.join(' ')).to.include('free-page-reporting=on');
  });

  it('gives a template and its clones one card at the same place, which is nobody’s address', () => {
    const image = { memory: { path: '/t/memory', inode: 7 }, statePath: '/t/state', directory: '/t', gid: 7 };
    const cardOf = (kind: 'template' | 'clone', tap: string): string[] => {
      const args = commandLine(settings, { ...spec, plugged: firstCardCommands({ kind, image }, tap) });
      return [...values(args, '-netdev'), ...values(args, '-device').filter((word) => word.includes('net'))];
    };
    expect(cardOf('template', 'tap0')).to.deep.equal([
      'type=tap,id=n0b,ifname=tap0,script=no,downscript=no,vhost=off',
      `id=n0,driver=virtio-net-pci,netdev=n0b,mac=${firstCardMac},romfile=,bus=rp0,addr=0x0.0,multifunction=off`,
    ]);
    const [one, other] = [cardOf('clone', 'a,b'), cardOf('clone', 'a,b')];
    expect(one[0]).to.include('ifname=a,,b');
    // What a guest's reset would bring back is the clone's own.
    expect(one[1]).not.to.equal(other[1]);
    const withoutMac = (word = ''): string => word.replace(/mac=02(:[0-9a-f]{2}){5}/, '');
    expect(withoutMac(one[1])).to.equal(withoutMac(cardOf('template', 'tap0')[1]));
    expect(firstCardCommands({ kind: 'own' }, 'tap0')).to.deep.equal([]);
  });

  it('has a console only when it is asked for', () => {
    expect(commandLine(settings, spec)).not.to.include('-serial');
    const debugged = commandLine({ ...settings, console: true }, spec);
    expect(debugged).to.include('-serial');
    expect(values(debugged, '-append')[0]).to.include('console=ttyS0');
  });

  it('refuses sizes and counts that make no machine', () => {
    for (const shape of [
      { vcpus: 0, memoryMib: 256 },
      { vcpus: 1.5, memoryMib: 256 },
      { vcpus: 65, memoryMib: 256 },
    ])
      expect(() => commandLine(settings, { ...spec, shape })).to.throw('vCPUs');
    for (const portCount of [0, portCountMax + 1])
      expect(() => commandLine({ ...settings, portCount }, spec)).to.throw('root ports');
  });

  it('leaves room for vCPUs and memory that come later', () => {
    const args = commandLine(settings, spec);
    expect(values(args, '-smp')).to.deep.equal(['cpus=2,maxcpus=8']);
    // 64 GiB of addresses for layers, 1000 MiB in whole sections, and two sections for a bad start and end.
    const maxMib = 256 + 64 * 1024 + 1024 + 256;
    expect(values(args, '-m')).to.deep.equal([`size=256M,slots=1,maxmem=${String(maxMib)}M`]);
    const fixed = commandLine({ ...settings, vcpusMax: 1, memoryMibMax: 0 }, spec);
    expect(values(fixed, '-smp')).to.deep.equal(['cpus=2,maxcpus=2']);
  });

  it('keeps a comma in a path from becoming an option', () => {
    expect(optionValue('/run/a,server=off')).to.equal('/run/a,,server=off');
    expect(() => optionValue('/run/a\nb')).to.throw('control characters');
  });

  it('hands values to the jail as arguments', () => {
    const evil = '$(touch /tmp/evil); `id`';
    const { program, args } = jailCommand('/helper', {
      uid: 1000,
      groups: [2000, 3000],
      netnsPath: evil,
      procsFiles: [evil, '/b'],
      deviceDirectory: '/dev',
      hugePages: false,
      feignHoles: true,
      program: 'qemu',
      args: ['-name', evil],
    });
    expect(program).to.equal('/helper');
    expect(args.join(' ')).to.include('--huge-pages 0 --feign-holes 1').and.not.to.include('--memory');
    expect(args.filter((arg) => arg === evil)).to.have.length(3);
    expect(args.slice(-4)).to.deep.equal(['--', 'qemu', '-name', evil]);
  });

  it('refuses run directories whose sockets would have too long names', () => {
    expect(() => new RunDirectory(`/run/${'x'.repeat(40)}`)).to.throw('too long');
    expect(() => new RunDirectory('/run/herkos').pathsOf('../../etc')).to.throw('not a VM id');
  });
});
