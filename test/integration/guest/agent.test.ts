import { guestAgentSuite } from '../../suites/guest-agent.js';
import { guestVm } from './guest-vm.js';

guestAgentSuite('in a VM', () => guestVm());
