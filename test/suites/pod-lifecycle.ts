/**
 * What every room of pods must do, whatever is behind its ports: run on the fakes, and through CRI on real
 * VMs with an image that has a shell at /bin/sh.
 */
import { expect } from 'chai';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

import type { ErrorClass } from '../../lib/base/errors.js';
import { eventually } from '../tools/eventually.js';
import { rejection } from '../tools/rejection.js';

/** A room of pods as its client sees it. */
export interface PodSubject {
  /** @returns the id of a pod that logs below `logDirectory` and is ready */
  run(): Promise<string>;
  /** A container of `sh -c script`; `logPath` empty: without log. */
  create(sandbox: string, script: string, logPath: string): Promise<string>;
  start(container: string): Promise<void>;
  stop(container: string, timeoutSeconds: number): Promise<void>;
  remove(container: string): Promise<void>;
  exec(container: string, command: readonly string[]): Promise<void>;
  stopSandbox(sandbox: string): Promise<void>;
  removeSandbox(sandbox: string): Promise<void>;
  isReady(sandbox: string): Promise<boolean>;
  container(id: string): Promise<ContainerView>;
  /** Ids of all that are listed. */
  sandboxes(): Promise<string[]>;
  containers(): Promise<string[]>;
  classOf(error: unknown): ErrorClass;
  /** Exists until `close`. */
  readonly logDirectory: string;
  /** Removes every pod that is left, and checks that nothing else is. */
  close(): Promise<void>;
}

export interface ContainerView {
  readonly phase: 'created' | 'running' | 'exited';
  readonly exitCode: number;
  readonly reason: string;
}

const forever = 'sleep 100000';

export function podLifecycleSuite(name: string, open: () => Promise<PodSubject>): void {
  describe(`life of a pod: ${name}`, () => {
    let subject: PodSubject;

    beforeEach(async () => {
      subject = await open();
    });

    afterEach(async () => {
      await subject.close();
    });

    async function start(sandbox: string, script: string, logPath = ''): Promise<string> {
      const id = await subject.create(sandbox, script, logPath);
      await subject.start(id);
      return id;
    }

    async function expectRefused(call: Promise<unknown>): Promise<void> {
      expect(subject.classOf(await rejection(call))).to.equal('FailedPrecondition');
    }

    it('runs, logs, ends, stops and is removed', async () => {
      const sandbox = await subject.run();
      expect(await subject.isReady(sandbox)).to.equal(true);
      const container = await start(sandbox, 'echo hello; exit 3', 'app/0.log');
      await eventually(async () => (await subject.container(container)).phase === 'exited');
      expect(await subject.container(container)).to.include({ exitCode: 3, reason: 'Error' });
      const log = await readFile(join(subject.logDirectory, 'app/0.log'), 'utf8');
      expect(log).to.match(/^\S+Z stdout F hello\n$/);
      await subject.stopSandbox(sandbox);
      expect(await subject.isReady(sandbox)).to.equal(false);
      await subject.removeSandbox(sandbox);
      expect(await subject.sandboxes()).to.deep.equal([]);
      expect(await subject.containers()).to.deep.equal([]);
    });

    it('holds several containers, one of which may come and go', async () => {
      const sandbox = await subject.run();
      const stays = await start(sandbox, forever);
      const goes = await start(sandbox, forever);
      await subject.remove(goes);
      expect(await subject.containers()).to.deep.equal([stays]);
      expect((await subject.container(stays)).phase).to.equal('running');
    });

    it('stops a container, kindly or at once, and says how it ended', async () => {
      const sandbox = await subject.run();
      const [kindly, atOnce] = [await start(sandbox, forever), await start(sandbox, forever)];
      await subject.stop(kindly, 1);
      // A shell that is the first process may ignore the signal, and is killed when the time is up.
      expect([137, 143]).to.include((await subject.container(kindly)).exitCode);
      await subject.stop(atOnce, 0);
      expect(await subject.container(atOnce)).to.include({ phase: 'exited', exitCode: 137 });
      await subject.stop(atOnce, 0);
    });

    it('kills what runs when the sandbox is stopped or removed', async () => {
      const sandbox = await subject.run();
      const container = await start(sandbox, forever);
      await subject.stopSandbox(sandbox);
      expect((await subject.container(container)).phase).to.equal('exited');
      await subject.stopSandbox(sandbox);
      const other = await subject.run();
      await start(other, forever);
      await subject.removeSandbox(other);
      expect(await subject.sandboxes()).to.deep.equal([sandbox]);
    });

    it('refuses what comes too late or too often', async () => {
      const sandbox = await subject.run();
      const container = await start(sandbox, forever);
      await expectRefused(subject.start(container));
      await subject.stopSandbox(sandbox);
      await expectRefused(subject.create(sandbox, forever, ''));
      await expectRefused(subject.exec(container, ['true']));
      await subject.stopSandbox('f'.repeat(64));
      await subject.remove('f'.repeat(64));
    });
  });
}
