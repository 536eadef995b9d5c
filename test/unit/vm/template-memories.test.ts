import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { FakeTemplateMemories } from '../../fakes/template-memories.js';
import { templateMemoriesSuite } from '../../suites/template-memories.js';

templateMemoriesSuite('the fake', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'hk-memories-'));
  return {
    memories: new FakeTemplateMemories(directory),
    again: () => new FakeTemplateMemories(directory),
    prepare: async (id) => {
      await mkdir(join(directory, id));
    },
    cleanUp: async () => {
      await rm(directory, { recursive: true });
    },
  };
});
