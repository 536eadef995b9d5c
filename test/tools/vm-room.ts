/** The VM room's settings and parts for tests, real ones where files are concerned. */
import { join } from 'node:path';

import { systemExec } from '../../lib/base/exec.js';
import { SealedTemplateMemories } from '../../lib/drivers/memfd/template-memories.js';
import type { Rehearsal } from '../../lib/vm/ports.js';
import type { VmSettings } from '../../lib/vm/settings.js';
import { TemplateFiles } from '../../lib/vm/template/template-files.js';
import { hostHelper } from './host-helper.js';

export function vmSettingsFor(
  directory: string,
  more: Pick<VmSettings, 'instance' | 'uidFirst' | 'uidCount'>,
  { templates = false, pool = 0, memoryMib = 192 } = {},
): VmSettings {
  return {
    ...more,
    sizing: {
      vcpusDefault: 1,
      memoryMibDefault: memoryMib,
      guestOverheadMib: 64,
      vcpusMax: 4,
      memoryMibMax: 1024,
    },
    poolCgroupParent: '',
    templates: {
      enabled: templates,
      directory: join(directory, 'templates'),
      bytesMax: 1024 ** 3,
      ageMsMax: 3_600_000,
      usesMax: 1000,
      buildTimeoutMs: 60_000,
      waitMsMax: 30_000,
      idleMsMin: 3_600_000,
    },
    pool: {
      size: pool,
      sizeMax: 4 * pool,
      memoryBytesMax: Number.MAX_SAFE_INTEGER,
      memoryReserveBytes: 0,
      idleMsMax: 3_600_000,
    },
  };
}

/** What the room needs beside its driver, network and store. */
export function vmRoomParts(settings: VmSettings): {
  readonly settings: VmSettings;
  readonly files: TemplateFiles;
  readonly rehearsal: Rehearsal;
  readonly availableBytes: () => Promise<number>;
  readonly bytesUsed: () => Promise<number>;
} {
  return {
    settings,
    files: new TemplateFiles({
      ...settings.templates,
      exec: systemExec,
      memories: new SealedTemplateMemories({ instance: settings.instance, hostHelper }),
    }),
    rehearsal: { rehearse: () => Promise.resolve() },
    availableBytes: () => Promise.resolve(Number.MAX_SAFE_INTEGER),
    bytesUsed: () => Promise.resolve(0),
  };
}
