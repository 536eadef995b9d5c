import { admin } from '#gen/admin/v1/services.js';

import { adminBuildTemplate } from './admin-build-template.js';
import { adminImportImage } from './admin-import-image.js';
import { adminInspectVm } from './admin-inspect-vm.js';
import { adminListTemplates } from './admin-list-templates.js';
import { adminListVms } from './admin-list-vms.js';
import { adminPullImage } from './admin-pull-image.js';
import { adminRemoveTemplate } from './admin-remove-template.js';
import { adminRotateTemplate } from './admin-rotate-template.js';
import type { CriParts } from './parts.js';
import type { Machines } from './ports.js';
import type { ServedService } from './server.js';
import type { Handlers } from './service.js';
import { implement } from './service.js';

/** The service of herkosctl, beside CRI on the same socket. */
export function adminService(parts: CriParts, machines: Machines): ServedService {
  const images: Handlers<typeof admin> = { pullImage: adminPullImage, importImage: adminImportImage };
  return implement(admin, { ...images, ...handlersOf(machines) }, parts);
}

function handlersOf(machines: Machines): Handlers<typeof admin> {
  return {
    listTemplates: () => adminListTemplates(machines),
    buildTemplate: (ctx, request, _, send) => adminBuildTemplate(ctx, request, machines, send),
    rotateTemplate: (ctx, request, _, send) => adminRotateTemplate(ctx, request, machines, send),
    removeTemplate: (_, request) => adminRemoveTemplate(request, machines),
    listVms: (ctx, _, { pods }) => adminListVms(ctx, machines, pods),
    inspectVm: (ctx, request, { pods }) => adminInspectVm(ctx, request, machines, pods),
  };
}
