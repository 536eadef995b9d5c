import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect } from 'chai';
import { parse } from 'smol-toml';

import { loadConfig, parseConfig } from '../../../lib/config/load.js';
import { diskBytesMax, diskBytesMin } from '../../../lib/model/writable-disk.js';
import { projectRoot } from '../../arch/project.js';
import { rejection } from '../../tools/rejection.js';

describe('config', () => {
  it('has a default for everything', () => {
    const config = parseConfig('', 'empty');
    expect(config.node.socket).to.equal('/run/herkos/herkos.sock');
    expect(config.vm.accel).to.equal('auto');
    expect(config.vm.ksm_domains).to.deep.equal([]);
    expect(config.pod.writable_layer).to.equal(10 * 1024 ** 3);
  });

  it('is in the manual with every key and its default', () => {
    const manual = readFileSync(join(projectRoot, 'docs/operating.md'), 'utf8');
    const [, text = ''] = /```toml\n([^]*?)```/.exec(manual) ?? [];
    const defaults = parseConfig('', 'empty');
    expect(parseConfig(text, 'manual')).to.deep.equal(defaults);
    for (const [section, values] of Object.entries(defaults))
      expect(parse(text)[section], section).to.have.all.keys(...Object.keys(values));
  });

  it('reads sizes with units', () => {
    expect(parseConfig('[vm]\nmemory = "512MiB"\n', 'x').vm.memory).to.equal(512 * 1024 ** 2);
  });

  it('takes the least and the most that work', () => {
    const { pod, image } = parseConfig(
      '[pod]\nwritable_layer = "16MiB"\nshm = 4096\n[image]\nstall_timeout_seconds = 1\n',
      'x',
    );
    expect(pod).to.include({ writable_layer: diskBytesMin, shm: 4096 });
    expect(image.stall_timeout_seconds).to.equal(1);
    expect(parseConfig('[pod]\nwritable_layer = "15TiB"\n', 'x').pod.writable_layer).to.equal(diskBytesMax);
  });

  it('serves metrics only where it is told to', () => {
    const addressOf = (text: string) => parseConfig(text, 'x').metrics.address;
    expect(addressOf('')).to.equal(undefined);
    expect(addressOf('[metrics]\naddress = ""\n')).to.equal(undefined);
    const local = { host: '127.0.0.1', port: 9464 };
    expect(addressOf('[metrics]\naddress = "127.0.0.1:9464"\n')).to.deep.equal(local);
    expect(addressOf('[metrics]\naddress = "[::1]:0"\n')).to.deep.equal({ host: '::1', port: 0 });
  });

  it('names the file, the key and the trouble', () => {
    const wrong: readonly (readonly [string, string[]])[] = [
      ['[vm]\nmemroy = 1\n', ['vm', 'memroy']],
      ['[vms]\n', ['vms']],
      ['[vm]\naccel = "hax"\n', ['vm.accel']],
      ['[vm]\nuid_first = 65536\n', ['vm.uid_first', 'write 65537 at least']],
      ['[vm]\nmemory = "lots"\n', ['vm.memory', "'lots' is not a size"]],
      ['[vm]\nmemory = -1\n', ['vm.memory', 'write a size such as "512MiB", or a number of bytes']],
      ['[vm]\nmemory = 1.5\n', ['vm.memory', 'write a size such as "512MiB", or a number of bytes']],
      ['[vm]\nmemory = true\n', ['vm.memory', 'write a size such as "512MiB", or a number of bytes']],
      ['[vm]\nmemory = "9000TiB"\n', ['vm.memory', "'9000TiB' is too large; write less than 8192TiB"]],
      ['[pod]\nwritable_layer = 0\n', ['pod.writable_layer', 'too small; write "16MiB" at least']],
      ['[pod]\nwritable_layer = "1KiB"\n', ['pod.writable_layer', 'write "16MiB" at least']],
      ['[pod]\nwritable_layer = "16TiB"\n', ['pod.writable_layer', 'too large; write "15TiB" at most']],
      ['[pod]\nshm = 0\n', ['pod.shm', 'too small; write "4KiB" at least']],
      ['[image]\nlayer_bytes_max = "0"\n', ['image.layer_bytes_max', 'write "1MiB" at least']],
      [
        '[image]\nstall_timeout_seconds = 0.0001\n',
        ['image.stall_timeout_seconds', 'write 1 second at least'],
      ],
      ['[vm]\nboot_timeout_seconds = 0\n', ['vm.boot_timeout_seconds', 'write 1 second at least']],
      ['[pod]\nguest_timeout_seconds = 86401\n', ['pod.guest_timeout_seconds', '86400 seconds at most']],
      ['[pod]\nguest_timeout_seconds = "1m"\n', ['pod.guest_timeout_seconds', 'write a number of seconds']],
      ['[vm]\nqemu = "bin/qemu"\n', ['vm.qemu', 'write the name of a program or an absolute path']],
      ['[vm]\nqemu = "/opt/../qemu"\n', ['vm.qemu', 'write the name of a program or an absolute path']],
      ['[vm]\nksm_domains = ["a", "b"]\n', ['vm.ksm_domains', 'only one domain', 'VMs of two domains']],
      ['[node]\nsocket = "run/x.sock"\n', ['node.socket', 'absolute path']],
      ['[node]\nstate_dir = "/var/../etc"\n', ['node.state_dir', '..']],
      ['[node]\ninstance = "Has Spaces"\n', ['node.instance']],
      ...[
        ['10.233.7.0', 'write for example 10.233.7.0/24'],
        ['10.233.7.5', 'write for example 10.233.7.0/24'],
        ['10.233.7.0/33', 'needs a prefix of 1 to 30 bits; write for example 10.233.7.0/24'],
        ['10.233.7.0/31', 'needs a prefix of 1 to 30 bits'],
        ['0.0.0.0/0', 'needs a prefix of 1 to 30 bits'],
        ['10.233.7.0/', 'needs a prefix of 1 to 30 bits'],
        ['10.233.7.0/024', 'needs a prefix of 1 to 30 bits'],
        ['10.233.7.5/24', 'write 10.233.7.0/24'],
        ['10.255.255.255/9', 'write 10.128.0.0/9'],
        ['fd00:1::', 'write for example fd00:1::/64'],
        ['fd00:1::/127', 'needs a prefix of 1 to 126 bits; write for example fd00:1::/64'],
        ['fd00:0:0:2:0:0:0:5/64', 'write fd00:0:0:2::/64'],
        ['fe80::%eth0/64', 'write for example 10.219.0.0/16 or fd68:6572:6b6f:1::/64'],
        ['the moon/8', 'write for example 10.219.0.0/16'],
      ].map(([subnet = '', what = '']): [string, string[]] => [
        `[network]\ndefault_subnets = ["${subnet}"]\n`,
        ['network.default_subnets.0', `'${subnet}'`, what],
      ]),
      ['[metrics]\naddress = ":9464"\n', ['metrics.address', '127.0.0.1:9464']],
      ['[metrics]\naddress = "localhost:9464"\n', ['metrics.address', 'an IP address']],
      ['[metrics]\naddress = "127.0.0.1"\n', ['metrics.address']],
      ['[metrics]\naddress = "127.0.0.1:65536"\n', ['metrics.address']],
      ['[metrics]\naddress = "::1:9464"\n', ['metrics.address']],
      ['[metrics]\naddress = "[127.0.0.1]:9464"\n', ['metrics.address']],
      ['[metrics]\naddress = "http://127.0.0.1:9464"\n', ['metrics.address']],
      ['[vm\n', ['not valid TOML']],
    ];
    for (const [text, words] of wrong) {
      let message = '';
      try {
        parseConfig(text, 'herkosd.toml');
      } catch (error) {
        message = String(error);
      }
      for (const word of ['herkosd.toml', ...words]) expect(message, text).to.include(word);
    }
  });

  it('takes subnets of all sizes and spellings', () => {
    for (const subnet of ['10.9.0.0/30', '10.0.0.0/8', 'fd00::/126', 'FD00:0:0:1:0:0:0:0/64'])
      expect(
        parseConfig(`[network]\ndefault_subnets = ["${subnet}"]\n`, 'x').network.default_subnets,
      ).to.deep.equal([subnet]);
  });

  it('needs the file that was asked for by name', async () => {
    const error = await rejection(loadConfig('/nonexistent/herkosd.toml'));
    expect(error).to.have.property('class', 'InvalidArgument');
    expect(String(error)).to.include('/nonexistent/herkosd.toml');
  });
});
