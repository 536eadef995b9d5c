import { shapeDefault } from './own-node.js';
import type { Bench } from './bench.js';
import { row, shownMs } from './bench.js';
import { run } from './interrupt.js';
import { RawTemplate } from './raw-template.js';
import { rawBoot, rawMachine } from './raw-vm.js';

const rounds = 7;
const quickRounds = 3;

/** The floors by themselves: what this machine and this QEMU can do at best. */
export const rawFloors: Bench = {
  names: ['raw-cold', 'raw-clone'],
  about: 'QEMU by hand, cold and from a template, until the agent answers: the floors of the other rows',
  minutes: 1,
  async run({ say, quick }) {
    const machine = await rawMachine(shapeDefault());
    const template = await RawTemplate.make(machine);
    const cold: number[] = [];
    const clone: number[] = [];
    try {
      say(`device state of the template: ${(template.stateBytes / 1e6).toFixed(2)} MB`);
      for (let round = 0; round < (quick ? quickRounds : rounds); round += 1) {
        cold.push(await rawBoot(run, machine));
        clone.push(await template.timedClones(1));
      }
    } finally {
      await template.remove();
    }
    say(`cold ${shownMs(cold)}; clone ${shownMs(clone)}`);
    return [
      row({ name: 'raw-cold', unit: 'ms', samples: cold, goal: '-' }),
      row({
        name: 'raw-clone',
        unit: 'ms',
        samples: clone,
        goal: '-',
        peer: { name: 'raw QEMU cold boot', samples: cold },
      }),
    ];
  },
};
