import { MIB, TIB } from '../base/units.js';

/** Below it ext4's own tables leave hardly any room. */
export const diskBytesMin = 16 * MIB;
/** With 32 bits for the number of a block ext4 ends at 16 TiB, and so do files on it. */
export const diskBytesMax = 15 * TIB;
