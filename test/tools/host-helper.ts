import { hostHelperOf } from '../../lib/config/node.js';

/** The program `herkos-host`, as set-up builds it. */
export const hostHelper = hostHelperOf({ host_helper: '' });
