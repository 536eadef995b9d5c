/** Of guests in tests that are made one by one. */
export const testMachineId = '5'.repeat(32);
