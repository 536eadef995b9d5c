import type { Context } from '../base/context.js';
import { decodeDomain, encodePhase } from './admin-machine-codec.js';
import { admin } from './admin-progress.js';
import type { Machines } from './ports.js';

const { Phase } = admin.TemplateProgress;

export async function adminRotateTemplate(
  ctx: Context,
  request: admin.RotateTemplateRequest,
  machines: Machines,
  send: (message: admin.TemplateProgress.$Properties) => void,
): Promise<void> {
  const domain = decodeDomain(request.domain);
  const templateId = await machines.rotateTemplate(ctx, domain, (phase) => {
    send({ phase: encodePhase(phase) });
  });
  send({ phase: Phase.PHASE_DONE, templateId });
}
