import { encodeTemplate } from './admin-machine-codec.js';
import type { admin } from './admin-progress.js';
import type { Machines } from './ports.js';

export async function adminListTemplates(
  machines: Machines,
): Promise<admin.ListTemplatesResponse.$Properties> {
  return { templates: (await machines.templates()).map(encodeTemplate) };
}
