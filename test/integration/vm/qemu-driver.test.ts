import { vmDriverSuite } from '../../suites/vm-driver.js';
import { qemuHarness } from './qemu-harness.js';

vmDriverSuite('qemu, layers as virtio-pmem', () => qemuHarness());
vmDriverSuite('qemu, layers as nvdimm', () => qemuHarness({ layerDevice: 'nvdimm' }));
