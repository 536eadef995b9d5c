/** Started by hack/errors-doc. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { errorsDoc, errorsDocPath } from './errors-doc.js';
import { projectRoot } from './project.js';

writeFileSync(join(projectRoot, errorsDocPath), errorsDoc(projectRoot));
