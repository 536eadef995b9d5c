#!/usr/bin/env -S node --max-semi-space-size=1 --single-threaded-gc
/** The node daemon: reads the configuration, builds the parts, serves CRI, shuts down; pods go on. */
import { parseArgs } from 'node:util';

import { messageOf } from '../../lib/base/errors.js';
import { loadConfig } from '../../lib/config/load.js';
import { openLog } from '../../lib/observe/log.js';
import { checkSizes } from './check-sizes.js';
import { startNode } from './node.js';
import { version } from './version.js';

const usage = `usage: herkosd [--config FILE] [--check] [--version]

Serves the Container Runtime Interface on a unix socket (default /run/herkos/herkos.sock).
  --config FILE  configuration; default /etc/herkos/herkosd.toml, which may be missing
  --check        only check the configuration
  --version      print the version`;

/** Before systemd's own patience ends (deploy/systemd/herkosd.service), which would say nothing in the log. */
const shutdownMsMax = 28_000;

const exitFailure = 1;
const exitUsage = 2;

interface Options {
  readonly config: string | undefined;
  readonly check: boolean;
}

function readOptions(): Options | undefined {
  const { values } = parseArgs({
    options: {
      config: { type: 'string' },
      check: { type: 'boolean', default: false },
      version: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) console.log(usage);
  else if (values.version) console.log(version);
  else return { config: values.config, check: values.check };
  return undefined;
}

async function main(options: Options): Promise<void> {
  const config = await loadConfig(options.config);
  checkSizes(config);
  if (options.check) {
    console.log('the configuration is good');
    return;
  }
  const log = openLog({ level: config.node.log_level, format: config.node.log_format });
  process.on('unhandledRejection', (error) => {
    // A promise that nobody watches is a mistake of ours; pods must not pay for it with the daemon's life.
    log.error('an error that nobody caught', { error: messageOf(error), stack: stackOf(error) });
  });
  const node = await startNode(config, log);
  const stop = (signal: NodeJS.Signals): void => {
    log.info('shutting down; pods go on', { signal });
    setTimeout(() => {
      log.error('the shutdown did not come to its end; the next start finishes it', { shutdownMsMax });
      process.exit(exitFailure);
    }, shutdownMsMax).unref();
    node.close().then(
      () => process.exit(0),
      (error: unknown) => {
        log.error('the shutdown failed', { error: messageOf(error) });
        process.exit(exitFailure);
      },
    );
  };
  process.once('SIGTERM', stop);
  process.once('SIGINT', stop);
}

function stackOf(error: unknown): string | undefined {
  return error instanceof Error ? error.stack : undefined;
}

let options: Options | undefined;
try {
  options = readOptions();
} catch (error) {
  console.error(`herkosd: ${messageOf(error)}\n\n${usage}`);
  process.exit(exitUsage);
}
if (options !== undefined) {
  try {
    await main(options);
  } catch (error) {
    console.error(`herkosd: ${messageOf(error)}`);
    process.exit(exitFailure);
  }
}
