import { expect } from 'chai';

import { background } from '../../../../lib/base/context.js';
import { newId } from '../../../../lib/base/ids.js';
import { AgentConnector } from '../../../../lib/drivers/guest/connector.js';
import type { Guest } from '../../../../lib/pod/ports.js';
import { FakeAgent } from '../../../fakes/guest-agent.js';
import { guestAgentSuite } from '../../../suites/guest-agent.js';
import type { GuestAgentHarness } from '../../../suites/guest-agent.js';
import { testMachineId } from '../../../tools/machine-id.js';
import { rejection } from '../../../tools/rejection.js';

async function fakeHarness(): Promise<GuestAgentHarness> {
  const fake = await FakeAgent.listen();
  const guests: Guest[] = [];
  return {
    connect: async () => {
      const guest = await new AgentConnector().connect(background(), fake.socketPath, testMachineId);
      guests.push(guest);
      return guest;
    },
    newContainer: (args) =>
      Promise.resolve({
        containerId: newId(),
        layers: [{ device: { kind: 'pci', rootPort: '4.0', function: 0 }, subdirs: [''] }],
        writableDisk: { kind: 'pci', rootPort: '4.1', function: 0 },
        ociConfig: Buffer.from(JSON.stringify({ process: { args } })),
        stdin: false,
      }),
    newProcess: (args, fields) => Buffer.from(JSON.stringify({ args, ...fields })),
    cleanUp: async () => {
      for (const guest of guests) await guest.close();
      await fake.close();
    },
  };
}

guestAgentSuite('in memory', fakeHarness);

describe('saying hello', () => {
  it('gives a machine that is nobody’s its id, once', async () => {
    const fake = await FakeAgent.listen();
    const connect = (machineId: string): Promise<Guest> =>
      new AgentConnector().connect(background(), fake.socketPath, machineId);
    for (const machineId of ['', testMachineId, testMachineId, '']) await (await connect(machineId)).close();
    expect(fake.machineId).to.equal(testMachineId);
    expect(fake.hellos.every(({ entropy }) => entropy.length === 512)).to.be.true;
    expect(new Set(fake.hellos.map(({ entropy }) => Buffer.from(entropy).toString('hex'))).size).to.equal(4);
    for (const wrong of ['6'.repeat(32), '55'])
      expect(await rejection(connect(wrong))).to.have.property('class', 'InvalidArgument');
    await fake.close();
  });
});
