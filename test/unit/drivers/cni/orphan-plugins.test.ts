import { spawn } from 'node:child_process';
import { once } from 'node:events';

import { expect } from 'chai';

import { background } from '../../../../lib/base/context.js';
import { newId } from '../../../../lib/base/ids.js';
import { endPluginsOf } from '../../../../lib/drivers/cni/orphan-plugins.js';

describe('plugins that outlived their daemon', () => {
  it('end with what they have started, and go on starting while they are looked for', async () => {
    const id = newId();
    const busy = 'while :; do sleep 1000 & sleep 0.001; done';
    const env = { PATH: process.env['PATH'], CNI_CONTAINERID: id };
    const plugin = spawn('sh', ['-c', busy], { env, stdio: 'ignore' });
    const ended = once(plugin, 'exit');
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(await endPluginsOf(background(), id)).to.be.greaterThan(1);
    await ended;
    expect(await endPluginsOf(background(), id)).to.equal(0);
  });

  it('of other containers go on', async () => {
    const plugin = spawn('sleep', ['1000'], { env: { PATH: process.env['PATH'], CNI_CONTAINERID: newId() } });
    expect(await endPluginsOf(background(), newId())).to.equal(0);
    expect(plugin.exitCode).to.equal(null);
    plugin.kill('SIGKILL');
    await once(plugin, 'exit');
  });
});
