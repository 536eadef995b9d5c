import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

import { expect } from 'chai';

import { projectRoot } from '../../arch/project.js';

const logModule = join(projectRoot, 'dist/lib/observe/log.js');
const settings = { level: 'info', format: 'text' } as const;

/** A process of its own that opens a log and runs `body`, as a module. */
function start(body: string, options: object = settings) {
  const script = `import { openLog } from ${JSON.stringify(logModule)};
    const log = openLog(${JSON.stringify(options)});
    ${body}`;
  return spawn(process.execPath, ['--input-type=module', '--eval', script], { stdio: 'pipe' });
}

describe('the log', () => {
  it('lets the process live on when nobody reads it any more', async () => {
    const child = start(`
      for await (const part of process.stdin) void part;
      for (let count = 0; count < 3; count += 1) {
        log.info('nobody reads this');
        console.log('nor this');
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      process.exitCode = 7;`);
    child.stdout.destroy();
    child.stderr.destroy();
    await Promise.all([once(child.stdout, 'close'), once(child.stderr, 'close')]);
    child.stdin.end();
    expect(await once(child, 'close')).to.deep.equal([7, null]);
  });
}).timeout(30_000);
