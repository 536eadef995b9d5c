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

/** The lines of its log. */
async function said(body: string, options: object): Promise<string[]> {
  const child = start(body, options);
  let text = '';
  child.stderr.on('data', (part: Buffer) => (text += part.toString()));
  await once(child, 'close');
  return text.trimEnd().split('\n');
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

  it('keeps message and fields as they are, whatever is in them', async () => {
    const body = `
      const pod = log.with({ pod: 'p1' });
      for (const message of ['50%done', '%s and %j', '100%%', '%o'])
        pod.warn(message, { error: '%s', stack: 'at %d' });
      pod.info('true', { message: 'm', level: 'error', timestamp: 'never', cause: 'c', splat: 's' });`;
    const lines = (await said(body, { level: 'info', format: 'json' })).map(
      (line): unknown => JSON.parse(line) as unknown,
    );
    for (const [index, message] of ['50%done', '%s and %j', '100%%', '%o'].entries())
      expect(lines[index]).to.include({ level: 'warn', message, pod: 'p1', error: '%s', stack: 'at %d' });
    expect(lines[4]).to.include({ level: 'info', message: 'true', pod: 'p1', cause: 'c', splat: 's' });
    expect(lines[4]).to.include({ 'field.message': 'm', 'field.level': 'error', 'field.timestamp': 'never' });
    expect(lines[4])
      .to.have.property('timestamp')
      .that.matches(/^\d{4}-/);
    const [text, , , , last] = await said(body, settings);
    expect(text).to.match(/^\d{4}-\S+ WARN  50%done pod=p1 error=%s stack="at %d"$/);
    expect(last).to.match(/^\d{4}-\S+ INFO  true pod=p1 field\.message=m field\.level=error /);
  });
}).timeout(30_000);
