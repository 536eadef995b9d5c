/**
 * What every room of pods must do, whatever is behind its ports: run on the fakes, and on real VMs with an
 * image that has a shell at /bin/sh.
 */
import { expect } from 'chai';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import { background } from '../../lib/base/context.js';
import { classOf } from '../../lib/base/errors.js';
import type { Pods } from '../../lib/cri/ports.js';
import { containerConfig, sandboxConfig } from '../fakes/pod-configs.js';
import { eventually } from '../tools/eventually.js';
import { rejection } from '../tools/rejection.js';

export interface PodSubject {
  readonly pods: Pods;
  /** Name of an image with /bin/sh, echo and sleep. */
  readonly image: string;
  /** Exists until `close`. */
  readonly logDirectory: string;
  /** Removes every pod that is left, and checks that nothing else is. */
  close(): Promise<void>;
}

const ctx = background();
const forever = 'sleep 100000';

export function podLifecycleSuite(name: string, open: () => Promise<PodSubject>): void {
  describe(`life of a pod: ${name}`, () => {
    let subject: PodSubject;
    let pods: Pods;

    beforeEach(async () => {
      subject = await open();
      ({ pods } = subject);
    });

    afterEach(async () => {
      await subject.close();
    });

    async function run(): Promise<string> {
      return (await pods.runSandbox(ctx, sandboxConfig({ logDirectory: subject.logDirectory }), '')).id;
    }

    async function start(sandbox: string, script: string, logPath = ''): Promise<string> {
      const config = containerConfig(script, { image: subject.image, logPath });
      const { id } = await pods.createContainer(ctx, sandbox, config);
      await pods.startContainer(ctx, id);
      return id;
    }

    it('runs, logs, ends, stops and is removed', async () => {
      const sandbox = await run();
      expect(pods.sandbox(sandbox).phase).to.equal('ready');
      const container = await start(sandbox, 'echo hello; exit 3', 'app/0.log');
      await eventually(() => pods.container(container).phase === 'exited');
      expect(pods.container(container).exit).to.include({ code: 3, reason: 'Error' });
      const log = await readFile(join(subject.logDirectory, 'app/0.log'), 'utf8');
      expect(log).to.match(/^\S+Z stdout F hello\n$/);
      await pods.stopSandbox(ctx, sandbox);
      expect(pods.sandbox(sandbox).phase).to.equal('notready');
      await pods.removeSandbox(ctx, sandbox);
      expect(pods.sandboxes()).to.deep.equal([]);
      expect(pods.containers()).to.deep.equal([]);
    });

    it('holds several containers, one of which may come and go', async () => {
      const sandbox = await run();
      const stays = await start(sandbox, forever);
      const goes = await start(sandbox, forever);
      await pods.removeContainer(ctx, goes);
      expect(pods.containers().map((one) => one.id)).to.deep.equal([stays]);
      expect(pods.container(stays).phase).to.equal('running');
    });

    it('stops a container, kindly or at once, and says how it ended', async () => {
      const sandbox = await run();
      const [kindly, atOnce] = [await start(sandbox, forever), await start(sandbox, forever)];
      await pods.stopContainer(ctx, kindly, 1);
      // A shell that is the first process may ignore the signal, and is killed when the time is up.
      expect([137, 143]).to.include(pods.container(kindly).exit?.code);
      await pods.stopContainer(ctx, atOnce, 0);
      expect(pods.container(atOnce)).to.include({ phase: 'exited' });
      expect(pods.container(atOnce).exit).to.include({ code: 137 });
      await pods.stopContainer(ctx, atOnce, 0);
    });

    it('kills what runs when the sandbox is stopped or removed', async () => {
      const sandbox = await run();
      const container = await start(sandbox, forever);
      await pods.stopSandbox(ctx, sandbox);
      expect(pods.container(container).phase).to.equal('exited');
      await pods.stopSandbox(ctx, sandbox);
      const other = await run();
      await start(other, forever);
      await pods.removeSandbox(ctx, other);
      expect(pods.sandboxes().map((one) => one.id)).to.deep.equal([sandbox]);
    });

    it('refuses what comes too late or too often', async () => {
      const sandbox = await run();
      const container = await start(sandbox, forever);
      expect(classOf(await rejection(pods.startContainer(ctx, container)))).to.equal('FailedPrecondition');
      await pods.stopSandbox(ctx, sandbox);
      const late = pods.createContainer(ctx, sandbox, containerConfig(forever, { image: subject.image }));
      expect(classOf(await rejection(late))).to.equal('FailedPrecondition');
      expect(classOf(await rejection(pods.execSync(ctx, container, ['true'], 1)))).to.equal(
        'FailedPrecondition',
      );
      await pods.stopSandbox(ctx, 'f'.repeat(64));
      await pods.removeContainer(ctx, 'f'.repeat(64));
    });
  });
}
