import { spawn } from 'node:child_process';

import { expect } from 'chai';

import { Interruption } from '../../../hack/interruption.js';
import { endWithUs } from '../../tools/end-with-us.js';
import { rejection } from '../../tools/rejection.js';

describe('an interruption', () => {
  let interruption: Interruption;

  beforeEach(() => {
    interruption = new Interruption();
  });

  afterEach(() => {
    interruption.dispose();
  });

  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    it(`by ${name} ends the program that runs, and is told before the next step`, async () => {
      const child = spawn('sleep', ['1000'], { stdio: 'ignore' });
      endWithUs(child);
      interruption.check();
      const error = rejection(interruption.ended(child));
      process.kill(process.pid, name);
      expect(String(await error)).to.include(`interrupted by ${name}`);
      expect(child.signalCode).to.equal('SIGTERM');
      expect(() => {
        interruption.check();
      }).to.throw(name);
    });

  it('does not end what cleans up', async () => {
    interruption.forget();
    const child = spawn('sh', ['-c', 'kill -TERM $PPID; exit 3'], { stdio: 'ignore' });
    expect(await interruption.ended(child)).to.equal(3);
    interruption.check();
  });
});
