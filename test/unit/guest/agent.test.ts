import { expect } from 'chai';

import { buildAgent } from '../../../guest/agent.js';
import { background } from '../../../lib/base/context.js';
import type { Exec } from '../../../lib/base/exec.js';

describe('building the agent', () => {
  it('says where it goes, whatever the environment of cargo says', async () => {
    const runs: string[] = [];
    const exec: Exec = {
      run: (_ctx, program, args) => {
        runs.push([program, ...args].join(' '));
        return Promise.resolve({ exitCode: 0, stdout: Buffer.alloc(0), stderr: Buffer.alloc(0) });
      },
    };
    const path = await buildAgent(background(), exec, '/project', () => undefined);
    const target = 'x86_64-unknown-linux-gnu';
    expect(path).to.equal(`/project/agent/target/${target}/release/herkos-agent`);
    expect(runs).to.have.length(1);
    expect(runs[0]).to.include(`--target ${target} --target-dir /project/agent/target`);
  });
});
