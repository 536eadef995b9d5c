import type { Context } from '../base/context.js';
import { decodeDomain, encodePhase } from './admin-machine-codec.js';
import { admin } from './admin-progress.js';
import type { Machines } from './ports.js';

const { Phase } = admin.TemplateProgress;

export async function adminBuildTemplate(
  ctx: Context,
  request: admin.BuildTemplateRequest,
  machines: Machines,
  send: (message: admin.TemplateProgress.$Properties) => void,
): Promise<void> {
  const domain = decodeDomain(request.domain);
  const { id, existed } = await machines.buildTemplate(ctx, domain, (phase) => {
    send({ phase: encodePhase(phase) });
  });
  send({ phase: Phase.PHASE_DONE, templateId: id, existed });
}
