import { CommanderError } from 'commander';
import { expect } from 'chai';

import type { CancellableContext } from '../../../lib/base/context.js';
import { background, withTimeout } from '../../../lib/base/context.js';
import { HerkosError } from '../../../lib/base/errors.js';
import { newId } from '../../../lib/base/ids.js';
import { Harness } from '../cri/harness.js';
import type { CliRun } from './cli.js';
import { herkosctl } from './cli.js';

describe('herkosctl template and vm', () => {
  let cri: Harness;
  let ctx: CancellableContext;
  beforeEach(async () => {
    cri = await Harness.start();
    ctx = withTimeout(background(), 60_000, 'test');
  });
  afterEach(async () => {
    ctx.cancel();
    await cri.stop();
  });

  const cli = async (...args: string[]): Promise<CliRun> => herkosctl(cri.socketPath, args, ctx);
  const json = async (...args: string[]): Promise<unknown> => {
    const { stdout, error } = await cli(...args, '-o', 'json');
    expect(error).to.equal(undefined);
    return JSON.parse(stdout);
  };

  describe('template', () => {
    it('build shows each phase, and prints the id alone', async () => {
      const { stdout, stderr, error } = await cli('template', 'build', '--domain', 'tenant-a');
      expect(error).to.equal(undefined);
      expect(stdout).to.equal(`${cri.machines.known[0]?.id ?? ''}\n`);
      for (const phase of ['preparing', 'booting', 'saving', 'verifying', 'done in'])
        expect(stderr).to.contain(`template of domain tenant-a: ${phase}`);
      expect((await cli('template', 'build', '-q', '--domain', 'tenant-b')).stderr).to.equal('');
    });

    it('build says when there is one already', async () => {
      const id = ((await json('template', 'build')) as { id: string }).id;
      const { stdout, stderr } = await cli('template', 'build');
      expect(stdout).to.equal(`${id}\n`);
      expect(stderr).to.contain('there is one already').and.not.contain('done');
      expect(await json('template', 'build')).to.deep.equal({ id, existed: true });
    });

    it('tells of a domain that no pod of the node is of: its name may be wrong', async () => {
      cri.machines.add(newId(), 'pod', { domain: 'tenant-a' });
      cri.machines.add(newId(), 'pool', { domain: 'tenant-b' });
      for (const command of ['build', 'rotate']) {
        const { stdout, stderr, error } = await cli('template', command, '--domain', 'tenat-a');
        expect(error).to.equal(undefined);
        expect(stderr).to.contain(
          'template of domain tenat-a: this node has no pod of that domain (pods here are of tenant-a); ' +
            `if the name is wrong: herkosctl template rm ${stdout}`,
        );
        for (const good of [[], ['--domain', 'default'], ['--domain', 'tenant-a']])
          expect((await cli('template', command, ...good)).stderr, good.join()).not.to.contain('no pod');
      }
    });

    it('rotate builds anew', async () => {
      const { id } = (await json('template', 'build')) as { id: string };
      const { stdout, stderr } = await cli('template', 'rotate');
      expect(stdout.trim())
        .to.match(/^[0-9a-f]{16}$/)
        .and.not.equal(id);
      expect(stderr).to.contain('booting').and.contain('done in');
      expect(cri.machines.known).to.have.length(1);
    });

    it('ls is a table for people and JSON for programs', async () => {
      await cli('template', 'build');
      const { id, ...facts } = cri.machines.known[0] ?? expect.fail('no template');
      cri.machines.known.push({ ...facts, domain: 'b', id: '', builtAtMs: 0, buildPhase: 'booting' });
      const { stdout } = await cli('template', 'ls');
      const [head, first, second] = stdout.split('\n');
      expect(head).to.match(/^TEMPLATE +DOMAIN +VCPUS +MEMORY +ACCEL +BUILT +USES +MEMORY USED +BUILD$/);
      expect(first).to.match(new RegExp(`^${id} +default +1 +256 MiB +tcg +.* ago +7 +40\\.0 MiB +-$`));
      expect(second).to.match(/^- +b +.* - +7 .* booting$/);
      expect(await json('template', 'ls')).to.have.nested.property('[0].memoryBytesUsed', '41943040');
    });

    it('rm takes beginnings of ids, and removes nothing when one of them is wrong', async () => {
      const { id } = (await json('template', 'build')) as { id: string };
      await cli('template', 'build', '--domain', 'b');
      expect((await cli('template', 'rm', id, 'fff')).error).to.include({ class: 'NotFound' });
      // Both begin with it; two digits are too few to mean one.
      expect((await cli('template', 'rm', id.slice(0, 5))).error).to.include({ class: 'InvalidArgument' });
      expect((await cli('template', 'rm', id.slice(0, 2))).error).to.include({ class: 'NotFound' });
      expect(cri.machines.known).to.have.length(2);
      expect((await cli('template', 'rm', id, id)).stdout).to.equal(`${id}\n`);
      const last = cri.machines.known[0]?.id ?? '';
      expect(await json('template', 'rm', '--all')).to.deep.equal({ removed: [last] });
      expect(await json('template', 'rm', '--all')).to.deep.equal({ removed: [] });
    });

    it('rm --all does not mind what went by itself, and tells what went wrong', async () => {
      await cli('template', 'build');
      cri.machines.removeTemplate = () => Promise.resolve(false);
      expect(await json('template', 'rm', '--all')).to.deep.equal({ removed: [] });
      cri.machines.removeTemplate = () => Promise.reject(new HerkosError('Internal', 'disk on fire'));
      expect((await cli('template', 'rm', '--all')).error).to.include({ message: 'disk on fire' });
    });

    for (const args of [['rm'], ['rm', '--all', 'abc'], ['build', 'x'], ['nonsense'], ['ls', '-o', 'xml']])
      it(`'template ${args.join(' ')}' is wrong usage`, async () => {
        const { error } = await cli('template', ...args);
        expect(error).to.be.instanceOf(CommanderError);
        expect(error).to.have.property('exitCode').that.is.above(0);
        expect(cri.machines.calls).to.deep.equal([]);
      });

    it('passes on what the daemon refuses', async () => {
      const { error, stdout } = await cli('template', 'build', '--domain', 'a/b');
      expect(error).to.include({ class: 'InvalidArgument' }).and.property('message').contains("'a/b'");
      expect(stdout).to.equal('');
    });
  });

  describe('vm', () => {
    it('ls shows every machine, and what it is for', async () => {
      const podId = await cri.sandbox('web');
      cri.machines.add(newId(), 'template', { source: 'cold' });
      cri.machines.add(newId(), 'pool', { source: 'pool' });
      cri.machines.add(podId, 'pod');
      const unnamed = cri.machines.add(newId(), 'pod', { pid: 0, source: 'cold' });
      cri.machines.all.pop();
      cri.machines.all.push({ record: unnamed.record, role: 'pod' });
      const { stdout } = await cli('vm', 'ls');
      const lines = stdout.trimEnd().split('\n');
      expect(lines).to.have.length(5);
      const web = lines.find((line) => line.includes('default/web'));
      expect(web).to.match(
        new RegExp(
          `^${podId.slice(0, 13)} +default/web +clone +default +4242 +1900000001 +tcg +2 +512 MiB +32\\.0 MiB`,
        ),
      );
      const bare = lines.find((line) => line.startsWith(unnamed.record.id.slice(0, 13)));
      expect(bare).to.match(/ cold +default +- +1900000001 +tcg +- +- +- +-$/);
      expect(lines.at(-2)).to.match(/^\w+ +pool +pool /);
      expect(lines.at(-1)).to.match(/^\w+ +template +cold /);
      expect(await json('vm', 'ls')).to.have.length(4);
    });

    it('inspect finds a machine by its id, its pod’s id and its pod’s name', async () => {
      const podId = await cri.sandbox('web');
      const id = newId();
      cri.machines.add(id, 'pod', { sandboxId: podId });
      for (const text of [id, id.slice(0, 6), podId.slice(0, 6), 'web', 'default/web']) {
        const told = await json('vm', 'inspect', text);
        expect(told, text).to.have.nested.property('record.id', id);
        expect(told, text).to.have.nested.property('pod.id', podId);
      }
      expect((await cli('vm', 'inspect', 'web')).stdout).to.contain('  source: clone\n');
      for (const text of ['nobody', 'other/web', id.slice(0, 2)])
        expect((await cli('vm', 'inspect', text)).error, text).to.include({ class: 'NotFound' });
    });

    it('inspect says what fits when a name fits several', async () => {
      for (const namespace of ['one', 'two']) {
        const metadata = { name: 'web', namespace, uid: namespace, attempt: 0 };
        cri.machines.add(await cri.sandbox('web', { metadata }), 'pod');
      }
      const { error } = await cli('vm', 'inspect', 'web');
      expect(error).to.include({ class: 'InvalidArgument' });
      expect(error).to.have.property('message').that.contains('one/web').and.contains('two/web');
      expect((await cli('vm', 'inspect', 'two/web')).error).to.equal(undefined);
    });
  });

  for (const [source, text] of [
    ['clone', 'cloned from a template'],
    ['pool', 'taken from the pool'],
    ['cold', 'booted in 1.50 s'],
  ] as const)
    it(`run tells that the machine is of source ${source}`, async () => {
      const guest = { kernelRelease: '6.1', bootMs: 1500 };
      cri.pods.describeSandbox = () => Promise.resolve({ vm: { source }, guest });
      const { stderr } = await cli('run', '-d', '--log-dir', cri.directory, 'example.org/app:1');
      expect(stderr).to.contain(`Linux 6.1, ${text}\n`);
      const quiet = await cli('run', '-dqo', 'json', '--log-dir', cri.directory, 'example.org/app:1');
      expect(JSON.parse(quiet.stdout)).to.include({ source });
      const [pod] = cri.pods.sandboxes();
      expect((await cli('inspect', pod?.id ?? '')).stdout).to.contain(`source: ${source}\n`);
    });
}).timeout(120_000);
