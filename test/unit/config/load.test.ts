import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect } from 'chai';
import { parse } from 'smol-toml';

import { loadConfig, parseConfig } from '../../../lib/config/load.js';
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
      ['[vm]\nmemory = "lots"\n', ['vm.memory', "'lots' is not a size"]],
      ['[vm]\nksm_domains = ["a", "b"]\n', ['vm.ksm_domains', 'only one domain', 'VMs of two domains']],
      ['[node]\nsocket = "run/x.sock"\n', ['node.socket', 'absolute path']],
      ['[node]\nstate_dir = "/var/../etc"\n', ['node.state_dir', '..']],
      ['[node]\ninstance = "Has Spaces"\n', ['node.instance']],
      ['[network]\ndefault_subnets = ["10.0.0.0"]\n', ['network.default_subnets']],
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

  it('needs the file that was asked for by name', async () => {
    const error = await rejection(loadConfig('/nonexistent/herkosd.toml'));
    expect(error).to.have.property('class', 'InvalidArgument');
    expect(String(error)).to.include('/nonexistent/herkosd.toml');
  });
});
