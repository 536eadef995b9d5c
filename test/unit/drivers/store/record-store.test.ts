import { mkdtemp, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { expect } from 'chai';
import fc from 'fast-check';

import type { LogFields, Logger } from '../../../../lib/base/logger.js';
import { silentLogger } from '../../../../lib/base/logger.js';
import { fileNameOfId, idOfFileName } from '../../../../lib/drivers/store/file-name.js';
import { FileRecordStore, recordBytesMax } from '../../../../lib/drivers/store/record-store.js';

interface Thing {
  readonly schemaVersion: 1;
  readonly id: string;
  readonly text: string;
}

function thing(id: string, text = 'x'): Thing {
  return { schemaVersion: 1, id, text };
}

describe('FileRecordStore', () => {
  let directory: string;
  let warnings: LogFields[];
  const logger: Logger = {
    ...silentLogger,
    warn: (_message, fields) => {
      warnings.push(fields ?? {});
    },
  };
  const open = (): FileRecordStore<Thing> =>
    new FileRecordStore<Thing>({ directory, schemaVersion: 1, logger });

  beforeEach(async () => {
    directory = join(await mkdtemp(join(tmpdir(), 'herkos-store-')), 'records');
    warnings = [];
  });

  afterEach(async () => {
    await rm(join(directory, '..'), { recursive: true, force: true });
  });

  it('gives back in a new store what was put, replaced and deleted', async () => {
    const first = open();
    expect(await first.loadAll()).to.deep.equal([]);
    await first.put(thing('sha256:abc'));
    await first.put(thing('b', 'old'));
    await first.put(thing('b', 'new'));
    await first.put(thing('gone'));
    await first.delete('gone');
    await first.delete('never-there');
    expect(await open().loadAll()).to.deep.equal([thing('b', 'new'), thing('sha256:abc')]);
    expect(warnings).to.deep.equal([]);
  });

  it('applies calls for one id in the order they were made', async () => {
    const store = open();
    await store.loadAll();
    const calls: Promise<void>[] = [];
    for (let i = 0; i < 50; i += 1)
      calls.push(i % 7 === 3 ? store.delete('a') : store.put(thing('a', String(i))));
    await Promise.all(calls);
    expect(await open().loadAll()).to.deep.equal([thing('a', '49')]);
  });

  it('removes what a crash left and sets aside what it cannot read, keeping the rest', async () => {
    await open().loadAll();
    await open().put(thing('good'));
    const bad: Readonly<Record<string, string>> = {
      'half.json': '{"schemaVersion":1,"id":"ha',
      'empty.json': '',
      'null.json': 'null',
      'array.json': '[]',
      'other.json': JSON.stringify(thing('another-id')),
      'newer.json': JSON.stringify({ ...thing('newer'), schemaVersion: 2 }),
      'no-version.json': JSON.stringify({ id: 'no-version' }),
      'readme.txt': 'hello',
    };
    for (const [name, text] of Object.entries(bad)) await writeFile(join(directory, name), text);
    await mkdir(join(directory, 'folder.json'));
    await writeFile(join(directory, 'good.json.0123.tmp'), '{"sch');
    expect(await open().loadAll()).to.deep.equal([thing('good')]);
    const left = await readdir(directory);
    expect(left.filter((name) => name.endsWith('.tmp'))).to.deep.equal([]);
    expect(left.filter((name) => name.includes('.broken-')).length).to.equal(Object.keys(bad).length + 1);
    expect(warnings.length).to.equal(Object.keys(bad).length + 1);
    const aside = left.find((name) => name.startsWith('half.json')) ?? '';
    expect(await readFile(join(directory, aside), 'utf8')).to.equal(bad['half.json']);
    warnings = [];
    expect(await open().loadAll()).to.deep.equal([thing('good')]);
    expect(warnings).to.deep.equal([]);
  });

  it('sets aside what the given check refuses', async () => {
    await open().loadAll();
    await open().put(thing('a', 'fine'));
    await open().put(thing('b', 'refused'));
    const store = new FileRecordStore<Thing>({
      directory,
      schemaVersion: 1,
      logger,
      check: (document) => {
        if (!('text' in document) || document.text !== 'fine') throw new Error('text is wrong');
        return document as Thing;
      },
    });
    expect(await store.loadAll()).to.deep.equal([thing('a', 'fine')]);
    expect(warnings[0]?.['why']).to.equal('text is wrong');
  });

  it('refuses ids that cannot be file names and records that are too big', async () => {
    const store = open();
    await store.loadAll();
    for (const id of ['', '.', '..', '../x', 'a/b', 'a\0b', '.hidden', 'a+b', 'x'.repeat(201)]) {
      let message = '';
      await store.put(thing(id)).catch((error: unknown) => {
        message = String(error);
      });
      expect(message, id).to.match(/cannot be the id/);
    }
    let tooBig = '';
    await store.put(thing('big', 'x'.repeat(recordBytesMax))).catch((error: unknown) => {
      tooBig = String(error);
    });
    expect(tooBig).to.match(/bigger than/);
    expect(await readdir(directory)).to.deep.equal([]);
  });

  it('keeps records private to the daemon', async () => {
    const store = open();
    await store.loadAll();
    await store.put(thing('a'));
    expect((await stat(directory)).mode & 0o777).to.equal(0o700);
    expect((await stat(join(directory, 'a.json'))).mode & 0o777).to.equal(0o600);
  });

  it('maps every id to its own file name and back', () => {
    const character = fc.constantFrom(...Array.from('abzAZ019._:-'));
    const id = fc
      .string({ unit: character, minLength: 1, maxLength: 60 })
      .filter((text) => /^[0-9A-Za-z]/.test(text));
    fc.assert(
      fc.property(id, (text) => {
        const name = fileNameOfId(text);
        expect(name).to.match(/^[^/:]+\.json$/);
        expect(idOfFileName(name)).to.equal(text);
      }),
    );
  });
});
