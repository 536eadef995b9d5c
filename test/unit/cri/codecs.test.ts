import { expect } from 'chai';
import Long from 'long';

import { v1 } from '../../../lib/cri/api.js';
import { decodeResources, encodeResources } from '../../../lib/cri/resources-codec.js';
import { decodeSecurity, decodeSignal, encodeSignal } from '../../../lib/cri/security-codec.js';

describe('codecs', () => {
  it('read every signal of the API and write it back', () => {
    const twins = new Map([
      ['SIGNAL_SIGCLD', 'SIGNAL_SIGCHLD'],
      ['SIGNAL_SIGIOT', 'SIGNAL_SIGABRT'],
      ['SIGNAL_SIGPOLL', 'SIGNAL_SIGIO'],
    ]);
    const linux: Readonly<Record<string, number>> = {
      SIGHUP: 1,
      SIGTERM: 15,
      'SIGRTMIN+3': 37,
      'SIGRTMAX-1': 63,
    };
    const all = Object.entries(v1.Signal).filter(([name]) => name.startsWith('SIGNAL_SIG'));
    expect(all).to.have.lengthOf(65);
    for (const [name, value] of all) {
      const text = decodeSignal(value as v1.Signal, 'x');
      expect(text).to.match(/^SIG[A-Z0-9]+([+-]\d+)?$/);
      const number = linux[text];
      if (number !== undefined) expect(v1.Signal[encodeSignal(number)]).to.equal(twins.get(name) ?? name);
    }
    expect(decodeSignal(undefined, 'x')).to.equal('');
    expect(encodeSignal(0)).to.equal(v1.Signal.SIGNAL_RUNTIME_DEFAULT);
    for (let number = 34; number <= 64; number += 1)
      expect(v1.Signal[encodeSignal(number)]).to.match(/^SIGNAL_SIGRT(MIN|MAX)/);
  });

  it('leave out limits that are not set', () => {
    expect(decodeResources(undefined, 'x')).to.deep.equal({});
    expect(
      decodeResources({ cpuShares: Long.ZERO, cpuQuota: Long.NEG_ONE, cpusetCpus: '' }, 'x'),
    ).to.deep.equal({});
    for (const none of ['-1', '-10001', '9007199254740992', '9223372036854771712', '9223372036854775807']) {
      const limit = Long.fromString(none);
      const sent = { cpuQuota: limit, memoryLimitInBytes: limit, memorySwapLimitInBytes: limit };
      expect(decodeResources(sent, 'x')).to.deep.equal({ memorySwapLimitBytes: -1 });
    }
  });

  it('give limits back as they were sent', () => {
    const sent: v1.LinuxContainerResources.$Properties = {
      cpuShares: Long.fromNumber(2),
      cpuQuota: Long.fromNumber(50_000),
      cpuPeriod: Long.fromNumber(100_000),
      memoryLimitInBytes: Long.fromString('9007199254740991'),
      memorySwapLimitInBytes: Long.NEG_ONE,
      oomScoreAdj: Long.fromNumber(-997),
      cpusetCpus: '0-1',
      cpusetMems: '0',
      hugepageLimits: [{ pageSize: '2MB', limit: Long.fromNumber(0, true) }],
      unified: { 'memory.oom.group': '1' },
    };
    const plain = (from: v1.LinuxContainerResources.$Properties): unknown =>
      v1.LinuxContainerResources.toObject(v1.LinuxContainerResources.fromObject(from), { longs: String });
    expect(plain(encodeResources(decodeResources(sent, 'x')))).to.deep.equal(plain(sent));
  });

  it('take no security context for the defaults of the API', () => {
    expect(decodeSecurity(undefined, 'x')).to.deep.equal({
      privileged: false,
      namespaceOptions: { network: 'POD', pid: 'POD', ipc: 'POD', targetId: '' },
      supplementalGroups: [],
      supplementalGroupsPolicy: 'Merge',
      readonlyRootfs: false,
      noNewPrivs: false,
      addCapabilities: [],
      dropCapabilities: [],
      addAmbientCapabilities: [],
      maskedPaths: [],
      readonlyPaths: [],
      seccomp: { type: 'Unconfined' },
    });
  });

  it('read seccomp profiles in their new and their old form', () => {
    const { ProfileType } = v1.SecurityProfile;
    const read = (from: v1.LinuxContainerSecurityContext.$Properties): unknown =>
      decodeSecurity(from, 'x').seccomp;
    expect(read({ seccomp: {} })).to.deep.equal({ type: 'RuntimeDefault' });
    expect(read({ seccomp: { profileType: ProfileType.Unconfined } })).to.deep.equal({ type: 'Unconfined' });
    const localhost = { profileType: ProfileType.Localhost, localhostRef: '/p.json' };
    expect(read({ seccomp: localhost })).to.deep.equal({ type: 'Localhost', path: '/p.json' });
    expect(read({ seccompProfilePath: 'runtime/default' })).to.deep.equal({ type: 'RuntimeDefault' });
    expect(read({ seccompProfilePath: 'localhost//p.json' })).to.deep.equal({
      type: 'Localhost',
      path: '/p.json',
    });
    expect(read({ seccomp: {}, seccompProfilePath: 'unconfined' })).to.deep.equal({ type: 'RuntimeDefault' });
  });
}).timeout(120_000);
