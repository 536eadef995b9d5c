/** A process that pulls, removes and pulls again until it is killed. Arguments: directory, references. */
import { background } from '../../../lib/base/context.js';
import { openImages } from './parts.js';

const [directory = '', ...references] = process.argv.slice(2);
const { images } = await openImages(directory);
await images.collectGarbage();
process.stdout.write('ready\n');
for (let round = 0; ; round += 1) {
  for (const [index, reference] of references.entries()) {
    await images.pull(background(), reference);
    if ((round + index) % 2 === 1) await images.remove(background(), reference);
  }
}
