import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, open, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';

import { background } from '../../../lib/base/context.js';
import { systemExec } from '../../../lib/base/exec.js';
import { SealedTemplateMemories } from '../../../lib/drivers/memfd/template-memories.js';
import { jailCommand, jailMemoryPath } from '../../../lib/drivers/qemu/jail.js';
import { templateMemoriesSuite } from '../../suites/template-memories.js';
import { eventually } from '../../tools/eventually.js';
import { hostHelper } from '../../tools/host-helper.js';
import { rejection } from '../../tools/rejection.js';

const ctx = background();
const bytes = 1024 * 1024;
const gid = 70_123;

templateMemoriesSuite('herkos-host', () => {
  const settings = { instance: `t${randomBytes(4).toString('hex')}`, hostHelper };
  return Promise.resolve({
    memories: new SealedTemplateMemories(settings),
    again: () => new SealedTemplateMemories(settings),
    prepare: () => Promise.resolve(),
    cleanUp: () => Promise.resolve(),
  });
});

describe('sealed memory of templates', () => {
  const settings = { instance: `t${randomBytes(4).toString('hex')}`, hostHelper };
  const memories = new SealedTemplateMemories(settings);
  const newId = (): string => randomBytes(8).toString('hex');

  afterEach(async () => {
    for (const id of await memories.list()) await memories.removeGone(ctx, id);
  });

  it('can be changed by nobody, root included (S3)', async () => {
    const { memory, seal } = await memories.make(ctx, newId(), bytes, gid);
    await seal(ctx);
    const file = await open(memory.path, 'r+');
    try {
      expect(await rejection(file.write(Buffer.alloc(1)))).to.have.property('code', 'EPERM');
    } finally {
      await file.close();
    }
    expect(await rejection(truncate(memory.path, 0))).to.have.property('code', 'EPERM');
    await memories.check(memory);
  });

  it('is held by a process without rights that no other user can look into (S2)', async () => {
    const { memory, seal } = await memories.make(ctx, newId(), bytes, gid);
    await seal(ctx);
    const status = await readFile(`/proc/${String(memory.pid)}/status`, 'utf8');
    expect(status).to.match(new RegExp(`^Uid:(\\s+${String(gid)}){4}$`, 'm'));
    expect(status).to.match(/^NoNewPrivs:\s+1$/m);
    for (const set of ['CapPrm', 'CapEff', 'CapInh', 'CapAmb'])
      expect(status).to.match(new RegExp(`^${set}:\\s+0+$`, 'm'));
    // The very same user, and the memory's group.
    const peek = spawn('setpriv', [
      ...['--reuid', String(gid), '--regid', String(gid), '--clear-groups', '--'],
      ...['cat', memory.path],
    ]);
    const [code] = (await once(peek, 'exit')) as [number];
    expect(code).not.to.equal(0);
  });

  it('is handed to a jail only when it is what it was, and sealed', async () => {
    const { memory, seal } = await memories.make(ctx, newId(), bytes, gid);
    const jailed = async (inode: number, mustBeSealed: boolean): Promise<string> => {
      const { program, args } = jailCommand(hostHelper, {
        uid: gid + 1,
        groups: [gid],
        netnsPath: '/proc/self/ns/net',
        procsFiles: [],
        deviceDirectory: '/dev',
        memory: { path: memory.path, inode, mustBeSealed },
        hugePages: false,
        feignHoles: false,
        program: '/bin/stat',
        args: ['-L', '-c', '%i', jailMemoryPath],
      });
      const { stdout, stderr } = await systemExec.run(ctx, program, args, { okExitCodes: [0, 1] });
      return stdout.toString('utf8') + stderr.toString('utf8');
    };
    const itself = `${String(memory.inode)}\n`;
    expect(await jailed(memory.inode, true)).to.include('can still be written');
    expect(await jailed(memory.inode, false)).to.equal(itself);
    await seal(ctx);
    expect(await jailed(memory.inode, true)).to.equal(itself);
    expect(await jailed(memory.inode + 1, true)).to.include('is not the memory it was');
  });

  it('is not taken for one because a process says so', async () => {
    const name = `herkos-memory-${settings.instance}-${newId()}`;
    const directory = await mkdtemp(join(tmpdir(), 'hk-liar-'));
    await writeFile(join(directory, 'memory'), 'exec 3<>/dev/zero; echo ready; read line');
    const liar = spawn('sh', ['memory', '--name', name], { cwd: directory });
    try {
      await once(liar.stdout, 'data');
      expect(await memories.list()).to.deep.equal([]);
      expect(await memories.bytesHeld()).to.equal(0);
    } finally {
      liar.kill('SIGKILL');
      await rm(directory, { recursive: true });
    }
  });

  it('that is not sealed yet ends with the daemon', async () => {
    const script = `
      import { background } from '${new URL('../../../lib/base/context.js', import.meta.url).href}';
      import { SealedTemplateMemories } from '${new URL('../../../lib/drivers/memfd/template-memories.js', import.meta.url).href}';
      const memories = new SealedTemplateMemories(${JSON.stringify(settings)});
      await memories.make(background(), '${newId()}', ${String(bytes)}, ${String(gid)});
      process.kill(process.pid, 'SIGKILL');
    `;
    const daemon = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: 'inherit' });
    const [, signal] = (await once(daemon, 'exit')) as [number | null, string | null];
    expect(signal).to.equal('SIGKILL');
    await eventually(async () => (await memories.list()).length === 0);
  });

  it('says what to do when the program is not there', async () => {
    const nowhere = new SealedTemplateMemories({ ...settings, hostHelper: '/nowhere/herkos-host' });
    const error = await rejection(nowhere.make(ctx, newId(), bytes, gid));
    expect(error).to.have.property('class', 'FailedPrecondition');
    expect(error).to.have.property('message').that.includes('host_helper');
  });

  it('passes on why the program refuses', async () => {
    const error = await rejection(memories.make(ctx, newId(), bytes, 0));
    expect(error).to.have.property('message').that.includes('as root');
  });
});
