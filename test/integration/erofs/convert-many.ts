/**
 * A program of its own, so that its memory is a conversion's alone: converts a generated layer of so
 * many files to argv[2] and prints JSON with the result and the peak of its resident set.
 */
import { argv, resourceUsage } from 'node:process';

import { background } from '../../../lib/base/context.js';
import { WorkerLayerConverter } from '../../../lib/image/convert/converter.js';
import { entry } from '../../unit/wire/tar/tar-builder.js';

async function* layer(files: number, contentBytes: number): AsyncGenerator<Uint8Array, void, undefined> {
  const content = Buffer.alloc(contentBytes, 'content');
  for (let index = 0; index < files; index += 1) {
    await Promise.resolve();
    const name = `usr/lib/package-${String(Math.floor(index / 50))}/lib/some-module-file-${String(index)}.js`;
    yield entry({ name, mtime: 1_700_000_000 + index }, content);
  }
  yield Buffer.alloc(1024);
}

const [, , destinationPath = '', files = '0', contentBytes = '0'] = argv;
const converter = new WorkerLayerConverter({ threadsMax: 1 });
const beforeKib = resourceUsage().maxRSS;
const result = await converter.convert(background(), {
  source: layer(Number(files), Number(contentBytes)),
  compression: 'none',
  expectedDiffId: undefined,
  destinationPath,
});
console.log(JSON.stringify({ ...result, beforeKib, peakKib: resourceUsage().maxRSS }));
await converter.close();
