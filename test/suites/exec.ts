/** What everything that runs programs must do. */
import { expect } from 'chai';

import { background, withCancel, withTimeout } from '../../lib/base/context.js';
import type { Exec } from '../../lib/base/exec.js';
import { rejection } from '../tools/rejection.js';

export function execSuite(name: string, newExec: () => Exec): void {
  describe(`programs: ${name}`, () => {
    let exec: Exec;

    before(() => {
      exec = newExec();
    });

    it('passes input and keeps both outputs and the exit code', async () => {
      const script = 'cat; echo problem >&2; exit 3';
      const result = await exec.run(background(), 'sh', ['-c', script], {
        input: 'words',
        okExitCodes: [3],
      });
      expect(result.exitCode).to.equal(3);
      expect(result.stdout.toString()).to.equal('words');
      expect(result.stderr.toString()).to.equal('problem\n');
    });

    it('passes bytes of any kind, more than a pipe holds', async () => {
      const input = Buffer.from(Array.from({ length: 300_000 }, (_, index) => index % 256));
      expect((await exec.run(background(), 'cat', [], { input })).stdout.equals(input)).to.equal(true);
    });

    it('does not mind a program that leaves its input alone', async () => {
      const input = Buffer.alloc(300_000);
      expect((await exec.run(background(), 'true', [], { input })).exitCode).to.equal(0);
    });

    it('gives the environment and the directory that were asked for', async () => {
      const script = 'echo "$KEY $HOME"; pwd';
      const options = { env: { PATH: '/usr/bin:/bin', KEY: 'a "b"\n=c ü' }, cwd: '/proc' };
      const { stdout } = await exec.run(background(), 'sh', ['-c', script, 'x y'], options);
      expect(stdout.toString()).to.equal('a "b"\n=c ü \n/proc\n');
    });

    it('gives its own environment when none was asked for', async () => {
      const { stdout } = await exec.run(background(), 'sh', ['-c', 'printf %s "$PATH"']);
      expect(stdout.toString()).to.equal(process.env['PATH']);
    });

    it('gives arguments that are no text as Node would', async () => {
      const { stdout } = await exec.run(background(), 'printf', ['%s', 'half \ud800 ü']);
      expect(stdout.toString()).to.equal('half \ufffd ü');
    });

    it('runs many at once and mixes nothing up', async () => {
      const numbers = Array.from({ length: 40 }, (_, index) => String(index));
      const results = await Promise.all(
        numbers.map(async (number) =>
          exec.run(background(), 'sh', ['-c', `cat; echo ${number}`], { input: number }),
        ),
      );
      expect(results.map(({ stdout }) => stdout.toString())).to.deep.equal(
        numbers.map((number) => `${number}${number}\n`),
      );
    });

    it('puts what the program said into the error', async () => {
      const error = await rejection(exec.run(background(), 'sh', ['-c', 'echo no such bridge >&2; exit 1']));
      expect(String(error)).to.include('exit code 1').and.to.include('no such bridge');
    });

    it('names the signal that ended it', async () => {
      const error = await rejection(exec.run(background(), 'sh', ['-c', 'kill -TERM $$']));
      expect(error).to.have.property('class', 'Internal');
      expect(String(error)).to.include('signal SIGTERM');
    });

    it('says which program is not installed', async () => {
      const error = await rejection(exec.run(background(), 'herkos-no-such-program', []));
      expect(error).to.have.property('class', 'FailedPrecondition');
      expect(String(error)).to.include('herkos-no-such-program').and.to.include('ENOENT');
    });

    it('says why a program cannot be run', async () => {
      const error = await rejection(exec.run(background(), '/etc/passwd', []));
      expect(error).to.have.property('class', 'FailedPrecondition');
      expect(String(error)).to.include('/etc/passwd').and.to.include('EACCES');
    });

    it('kills the program when the deadline passes', async () => {
      const ctx = withTimeout(background(), 50, 'sleeping');
      const error = await rejection(exec.run(ctx, 'sleep', ['600']));
      expect(error).to.have.property('class', 'DeadlineExceeded');
    });

    it('kills the program when the caller leaves, at any moment', async () => {
      for (let turn = 0; turn < 20; turn += 1) {
        const ctx = withCancel(background());
        const running = rejection(exec.run(ctx, 'sleep', ['600']));
        await new Promise((resolve) => setTimeout(resolve, turn % 5));
        ctx.cancel();
        expect(await running).to.have.property('class', 'Cancelled');
      }
    });

    it('runs nothing for a caller that has left', async () => {
      const ctx = withCancel(background());
      ctx.cancel();
      expect(await rejection(exec.run(ctx, 'sleep', ['600']))).to.have.property('class', 'Cancelled');
    });

    it('stops a program that prints without end', async () => {
      const error = await rejection(exec.run(background(), 'yes', [], { outputBytesMax: 4096 }));
      expect(error).to.have.property('class', 'ResourceExhausted');
    });
  });
}
