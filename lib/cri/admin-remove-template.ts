import { HerkosError } from '../base/errors.js';
import type { admin } from './admin-progress.js';
import { invalid, requiredText, shown } from './checks.js';
import type { Machines } from './ports.js';

/** Ids name directories of the node: nothing else gets as far as the room. */
const templateIdPattern = /^[0-9a-f]{16}$/;

/** @throws NotFound */
export async function adminRemoveTemplate(
  request: admin.RemoveTemplateRequest,
  machines: Machines,
): Promise<admin.RemoveTemplateResponse.$Properties> {
  const id = requiredText(request.id, 'id');
  if (!templateIdPattern.test(id)) throw invalid(`'${shown(id)}' is no template’s id: 16 hex digits`);
  if (!(await machines.removeTemplate(id))) throw new HerkosError('NotFound', `there is no template ${id}`);
  return {};
}
