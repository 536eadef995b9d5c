/**
 * The daemon, except that it kills itself (SIGKILL) right after the n-th write to a record store, where n
 * stands in the file named by HERKOS_CRASH_FILE. Without that file it is the daemon as it is.
 */
import { readFileSync, unlinkSync } from 'node:fs';
import { parseArgs } from 'node:util';

import { loadConfig } from '../../lib/config/load.js';
import type { RecordStore } from '../../lib/pod/ports.js';
import { openLog } from '../../lib/observe/log.js';
import { startNode } from '../../cmd/herkosd/node.js';

const crashFile = process.env['HERKOS_CRASH_FILE'] ?? '';
let writes = 0;

function afterWrite(what: string): void {
  let limit: number;
  try {
    limit = Number(readFileSync(crashFile, 'utf8'));
  } catch {
    writes = 0;
    return;
  }
  writes += 1;
  process.stderr.write(`write ${String(writes)} of ${String(limit)}: ${what}\n`);
  if (writes < limit) return;
  unlinkSync(crashFile);
  process.kill(process.pid, 'SIGKILL');
}

function crashing<T extends { readonly id: string }>(store: RecordStore<T>, name: string): RecordStore<T> {
  return {
    loadAll: async () => store.loadAll(),
    put: async (record) => {
      await store.put(record);
      const phase = 'phase' in record ? String(record.phase) : '';
      afterWrite(`put ${name} ${phase}`);
    },
    delete: async (id) => {
      await store.delete(id);
      afterWrite(`delete ${name}`);
    },
  };
}

const { values } = parseArgs({ options: { config: { type: 'string' } } });
const config = await loadConfig(values.config);
await startNode(config, openLog({ level: config.node.log_level, format: config.node.log_format }), crashing);
