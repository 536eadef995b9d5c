import { appendFile, mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { expect } from 'chai';

import { Exit } from '../../../cmd/herkosctl/exit-codes.js';
import type { CancellableContext } from '../../../lib/base/context.js';
import { background, withTimeout } from '../../../lib/base/context.js';
import { newId } from '../../../lib/base/ids.js';
import { Harness, containerConfig } from '../cri/harness.js';
import type { CliRun } from './cli.js';
import { herkosctl } from './cli.js';

interface Pair {
  readonly podId: string;
  readonly containerId: string;
}

describe('herkosctl targets', () => {
  let cri: Harness;
  let ctx: CancellableContext;
  beforeEach(async () => {
    cri = await Harness.start();
    ctx = withTimeout(background(), 20_000, 'test');
  });
  afterEach(async () => {
    ctx.cancel();
    await cri.stop();
  });

  const cli = async (...args: string[]): Promise<CliRun> => herkosctl(cri.socketPath, args, ctx);
  const messageOf = async (...args: string[]): Promise<string> => {
    const { error } = await cli(...args);
    expect(error).to.have.property('message').that.is.a('string');
    return (error as Error).message;
  };
  /** As `run --name p1` does it. */
  const run = async (): Promise<Pair> => {
    const uid = newId();
    const podId = await cri.sandbox('p1', {
      metadata: { name: 'p1', namespace: 'herkosctl', uid, attempt: 0 },
      logDirectory: join(cri.directory, uid),
    });
    const containerId = await cri.container(podId);
    await cri.call(cri.rpc.startContainer, { containerId });
    return { podId, containerId };
  };
  const end = async ({ podId, containerId }: Pair): Promise<void> => {
    cri.pods.exit(containerId, 0);
    await cri.call(cri.rpc.stopPodSandbox, { podSandboxId: podId });
  };

  it('of several with a name, the only one that runs is meant', async () => {
    const first = await run();
    await end(await run());
    const { logPath } = cri.pods.container(first.containerId);
    await mkdir(dirname(logPath), { recursive: true });
    await appendFile(logPath, '2026-01-01T00:00:00Z stdout F hello\n');
    for (const name of ['p1', 'app']) {
      expect((await cli('exec', name, 'ls')).error)
        .to.be.instanceOf(Exit)
        .with.property('code', 0);
      expect(cri.pods.calls.at(-1)).to.equal(`execSync ${first.containerId} 0`);
      expect((await cli('logs', name)).stdout).to.equal('hello\n');
    }
    expect((await cli('stop', 'p1', '-o', 'json')).stdout).to.contain(first.podId);
  });

  it('says of each that fits whether it runs, when none or several do', async () => {
    const [first, second] = [await run(), await run()];
    const shown = ({ podId }: Pair, state: string): string => `pod p1 (${podId.slice(0, 13)}, ${state})`;
    for (const args of [
      ['exec', 'p1', 'ls'],
      ['logs', 'p1'],
      ['stop', 'p1'],
      ['inspect', 'p1'],
    ])
      expect(await messageOf(...args))
        .to.contain(shown(first, 'ready'))
        .and.contain(shown(second, 'ready'));
    expect(await messageOf('logs', 'app')).to.contain(
      `container app (${first.containerId.slice(0, 13)}, running)`,
    );
    await end(first);
    await end(second);
    expect(await messageOf('logs', 'p1')).to.contain(shown(first, 'not ready'));
    expect(await messageOf('logs', 'app')).to.contain('exited)');
  });

  it('takes no pod for a container whose id begins with the same digits', async () => {
    const { podId, containerId } = await run();
    // Ids come from chance: so many containers that one begins as a pod does.
    const pods = new Map([[podId.slice(0, 3), podId]]);
    const containers = new Map([[containerId.slice(0, 3), containerId]]);
    const both = (): string | undefined => [...pods.keys()].find((digits) => containers.has(digits));
    while (both() === undefined) {
      const more = await run();
      pods.set(more.podId.slice(0, 3), more.podId);
      containers.set(more.containerId.slice(0, 3), more.containerId);
    }
    const digits = both() ?? '';
    for (const args of [
      ['exec', digits, 'ls'],
      ['logs', digits],
    ])
      expect(await messageOf(...args), args.join(' '))
        .to.contain('fits several')
        .and.contain(`pod p1 (${pods.get(digits)?.slice(0, 13) ?? ''}`)
        .and.contain(`container app (${containers.get(digits)?.slice(0, 13) ?? ''}`);
  });

  it('takes a name before the beginning of an id, and the pod of a name that a container has too', async () => {
    const { podId } = await run();
    const other = await cri.sandbox('other', { logDirectory: join(cri.directory, 'other') });
    const named = await cri.container(other, containerConfig({ metadata: { name: podId.slice(0, 8) } }));
    await cli('exec', podId.slice(0, 8), 'ls');
    expect(cri.pods.calls.at(-1)).to.equal(`execSync ${named} 0`);
    const pod = await cri.sandbox('app', { logDirectory: join(cri.directory, 'app') });
    const inside = await cri.container(pod, containerConfig({ metadata: { name: 'inside' } }));
    await cli('exec', 'app', 'ls');
    expect(cri.pods.calls.at(-1)).to.equal(`execSync ${inside} 0`);
  });

  it('never chooses what to remove', async () => {
    const [first, second] = [await run(), await run()];
    await end(second);
    expect(await messageOf('rm', '-f', 'p1'))
      .to.contain('fits several')
      .and.contain('not ready');
    expect(cri.pods.sandboxes()).to.have.length(2);
    expect((await cli('rm', first.podId, '-f')).error).to.equal(undefined);
  });

  it('says when the beginning of an id is too short', async () => {
    const { podId, containerId } = await run();
    cri.machines.add(podId, 'pod');
    await cli('template', 'build');
    const templateId = cri.machines.known[0]?.id ?? '';
    for (const args of [
      ['exec', containerId.slice(0, 2), 'ls'],
      ['logs', containerId.slice(0, 1)],
      ['stop', podId.slice(0, 2)],
      ['inspect', podId.slice(0, 2)],
      ['vm', 'inspect', podId.slice(0, 2)],
      ['template', 'rm', templateId.slice(0, 2)],
    ])
      expect(await messageOf(...args), args.join(' ')).to.contain('needs at least 3 digits');
    expect(await messageOf('inspect', 'zz')).to.contain("there is no pod or container 'zz'");
    cri.images.add('ab');
    expect((await cli('inspect', 'ab')).error).to.equal(undefined);
  });

  it('says that an empty target is none', async () => {
    await run();
    for (const args of [
      ['inspect', ''],
      ['exec', '', 'ls'],
      ['logs', ''],
      ['rm', ''],
      ['vm', 'inspect', ''],
    ])
      expect(await messageOf(...args), args.join(' ')).to.contain('a name or id is needed');
    expect(await messageOf('template', 'rm', '')).to.contain('an id is needed');
  });
}).timeout(60_000);
