import { admin } from '#gen/admin/v1/services.js';

import { adminImportImage } from './admin-import-image.js';
import { adminPullImage } from './admin-pull-image.js';
import type { CriParts } from './parts.js';
import type { ServedService } from './server.js';
import { implement } from './service.js';

/** The service of herkosctl, beside CRI on the same socket. */
export function adminService(parts: CriParts): ServedService {
  return implement(admin, { pullImage: adminPullImage, importImage: adminImportImage }, parts);
}
