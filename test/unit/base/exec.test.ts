import { systemExec } from '../../../lib/base/exec.js';
import { execSuite } from '../../suites/exec.js';
import { launcherSuite } from '../../suites/launcher.js';

execSuite('the system’s', () => systemExec);
launcherSuite('the system’s', () => systemExec);
