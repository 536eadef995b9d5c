import { expect } from 'chai';

import { encodeProcess, specBytesMax } from '../../../../lib/wire/ocispec/codec.js';
import type { OciProcess } from '../../../../lib/wire/ocispec/types.js';

const process: OciProcess = {
  terminal: false,
  user: { uid: 0, gid: 0, additionalGids: [] },
  args: ['true'],
  env: [],
  cwd: '/',
  capabilities: { bounding: [], effective: [], permitted: [], inheritable: [], ambient: [] },
  noNewPrivileges: false,
};

describe('OCI documents', () => {
  it('are JSON', () => {
    expect(JSON.parse(encodeProcess(process).toString())).to.deep.equal(process);
  });

  it('have a size that one message of the agent can carry', () => {
    const env = ['x'.repeat(specBytesMax)];
    expect(() => encodeProcess({ ...process, env })).to.throw(/shorten its environment or arguments/);
  });
});
