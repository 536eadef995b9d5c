/** What every keeper of templates' memory must do. */
import { randomBytes } from 'node:crypto';
import { open, readFile, stat } from 'node:fs/promises';

import { expect } from 'chai';

import { background } from '../../lib/base/context.js';
import type { TemplateMemories } from '../../lib/vm/ports.js';
import { rejection } from '../tools/rejection.js';

export interface TemplateMemoriesSetting {
  readonly memories: TemplateMemories;
  /** As a daemon that has just started sees them. */
  readonly again: () => TemplateMemories;
  /** The directory that the template room makes for each. */
  readonly prepare: (id: string) => Promise<void>;
  readonly cleanUp: () => Promise<void>;
}

const ctx = background();
const bytes = 1024 * 1024;
const gid = 4711;

export function templateMemoriesSuite(
  name: string,
  newSetting: () => Promise<TemplateMemoriesSetting>,
): void {
  describe(`memory of templates: ${name}`, () => {
    let setting: TemplateMemoriesSetting;
    const newId = async (): Promise<string> => {
      const id = randomBytes(8).toString('hex');
      await setting.prepare(id);
      return id;
    };

    beforeEach(async () => {
      setting = await newSetting();
    });

    afterEach(async () => {
      for (const id of await setting.memories.list()) await setting.memories.removeGone(ctx, id);
      await setting.cleanUp();
    });

    it('is empty, of the size asked for, and its group’s alone', async () => {
      const { memory } = await setting.memories.make(ctx, await newId(), bytes, gid);
      const info = await stat(memory.path);
      expect({ size: info.size, gid: info.gid, mode: info.mode & 0o777, inode: info.ino }).to.deep.equal({
        size: bytes,
        gid,
        mode: 0o660,
        inode: memory.inode,
      });
    });

    it('keeps what was written before it was sealed', async () => {
      const { memories } = setting;
      const { memory, seal } = await memories.make(ctx, await newId(), bytes, gid);
      const file = await open(memory.path, 'r+');
      await file.write(Buffer.alloc(8192, 7), 0, 8192, 0);
      await file.close();
      await seal(ctx);
      expect([...(await readFile(memory.path)).subarray(8191, 8193)]).to.deep.equal([7, 0]);
    });

    it('is found again by a later daemon, by id', async () => {
      const id = await newId();
      const { memory, seal } = await setting.memories.make(ctx, id, bytes, gid);
      await seal(ctx);
      const later = setting.again();
      expect(await later.list()).to.deep.equal([id]);
      await later.check(memory);
      await later.removeGone(ctx, id);
      expect(await later.list()).to.deep.equal([]);
      expect(await rejection(later.check(memory))).to.have.property('reason', 'TEMPLATE_CHANGED');
    });

    it('is told from another that took its place', async () => {
      const { memories } = setting;
      const one = await memories.make(ctx, await newId(), bytes, gid);
      const other = await memories.make(ctx, await newId(), bytes, gid);
      await memories.check(one.memory);
      const mixed = { ...one.memory, path: other.memory.path };
      expect(await rejection(memories.check(mixed))).to.have.property('reason', 'TEMPLATE_CHANGED');
    });

    it('counts in full, however little of it is filled', async () => {
      const { memories } = setting;
      const ids = [await newId(), await newId()];
      for (const id of ids) await memories.make(ctx, id, bytes, gid);
      expect(await memories.bytesHeld()).to.equal(2 * bytes);
      await memories.removeGone(ctx, ids[0] ?? '');
      expect(await memories.bytesHeld()).to.equal(bytes);
    });

    it('is removed as often as asked', async () => {
      const id = await newId();
      await setting.memories.make(ctx, id, bytes, gid);
      for (let time = 0; time < 2; time += 1) await setting.memories.removeGone(ctx, id);
      expect(await setting.memories.list()).to.deep.equal([]);
    });
  });
}
