import { expect } from 'chai';

import { HerkosError } from '../../../lib/base/errors.js';
import type { FakeVm } from '../../fakes/pod-world.js';
import { PodHarness, expectClass } from '../../fakes/pod-harness.js';

describe('a pod whose VM was cloned', () => {
  let node: PodHarness;

  beforeEach(async () => {
    node = await PodHarness.create({ cloneMs: 200, guestMs: 200 });
    node.world.vmSource = 'clone';
  });

  afterEach(async () => {
    await node.close();
  });

  const ways: Record<string, (vm: FakeVm) => void> = {
    'dies at once': (vm) => {
      vm.die('bus error');
    },
    'breaks its connection': (vm) => {
      vm.guest.refuseSetup = new HerkosError('Unavailable', 'the connection broke');
    },
    'never answers': (vm) => {
      vm.guest.frozen = true;
    },
  };
  for (const [name, spoil] of Object.entries(ways)) {
    it(`boots when the clone ${name}, on the network it has`, async () => {
      const clones: FakeVm[] = [];
      node.world.spoilClone = (vm) => {
        clones.push(vm);
        spoil(vm);
      };
      const sandbox = await node.run();
      const vm = node.world.vm(sandbox);
      expect(clones).to.have.length(1);
      expect(vm).to.include({ source: 'cold', isAlive: true });
      expect(vm.nics).to.have.length(1);
      expect(vm.guest.setup?.hostname).to.be.a('string');
      expect(node.world.observer.told).to.deep.equal([
        'pod started cold: record queue vm guest network nic setup total',
      ]);
      expect([...node.world.networks]).to.deep.equal([sandbox]);
      await node.start(sandbox);
    });
  }

  it('out of the pool gives its waiting card the address of the pod', async () => {
    node.world.vmSource = 'pool';
    node.world.spoilClone = (vm) => {
      vm.spareMac = '02:77:00:00:00:01';
    };
    const vm = node.world.vm(await node.run());
    expect(vm.guest.setup?.interfaces).to.have.length(1);
    expect(node.world.observer.count('pod started pool')).to.equal(1);
    expect(vm.guest.setup?.interfaces[0]).to.include({ mac: vm.nics[0], cardMac: '02:77:00:00:00:01' });
  });

  it('does not boot when the guest only refuses what the pod asks for', async () => {
    node.world.spoilClone = (vm) => {
      vm.guest.refuseSetup = new HerkosError('InvalidArgument', 'no such sysctl');
    };
    await expectClass(node.run(), 'InvalidArgument', /no such sysctl/);
    expect(node.world.vms.size).to.equal(0);
    expect(node.world.networks.size).to.equal(0);
    expect(node.world.observer.told).to.deep.equal(['pod not started InvalidArgument']);
  });
});
