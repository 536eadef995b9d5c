import { z } from 'zod';

import { absolutePath, bytes, positiveInt, seconds } from './values.js';

/** `[vm]`: the hypervisor and the machines it makes. */
export const vmSection = z.strictObject({
  /** `auto` uses KVM where a guest really boots with it, else TCG (slow, works everywhere). */
  accel: z.enum(['auto', 'kvm', 'tcg']).default('auto'),
  qemu: z
    .union([absolutePath, z.string().regex(/^[^/\0]+$/)], 'write the name of a program or an absolute path')
    .default('qemu-system-x86_64'),
  /** Where `guest/build` put vmlinux, initramfs.cpio, root.erofs and manifest.json; empty: beside the program. */
  guest_dir: z.union([absolutePath, z.literal('')]).default(''),
  /** A pod's machine when the kubelet sends no limits. */
  vcpus: positiveInt.max(64).default(1),
  memory: bytes.default(256 * 1024 * 1024),
  /** Added to the pod's own limits for the guest's kernel and agent. */
  memory_overhead: bytes.default(96 * 1024 * 1024),
  /** Clone pods' machines from one that has booted; off: every pod boots its own. */
  templates: z.boolean().default(true),
  /** Memory for all templates of the node together; only what their guests have written is really used. */
  template_memory: bytes.default(2 * 1024 * 1024 * 1024),
  /** A template is built anew when it is so old, or was used so often. */
  template_age_seconds: seconds.default(86_400),
  template_uses: positiveInt.default(10_000),
  /** Cloned machines kept ready for the next pods of each kind; each costs a few tens of megabytes. */
  pool: z.number().int().min(0).max(256).default(0),
  /** What they may use of the node's memory together. */
  pool_memory: bytes.default(2 * 1024 * 1024 * 1024),
  /** With less memory than this available on the node, no machine is kept ready. */
  pool_memory_reserve: bytes.default(1024 * 1024 * 1024),
  /** Domains whose VMs may have equal pages merged by the kernel, which tells domains not apart: so one at most. */
  ksm_domains: z
    .array(z.string().min(1))
    .max(
      1,
      'only one domain may opt in: the kernel merges equal pages of all mergeable processes of the node, so ' +
        'VMs of two domains would share memory with each other',
    )
    .default([]),
  /** How image layers become devices in the guest. */
  layer_device: z.enum(['virtio-pmem', 'nvdimm']).default('virtio-pmem'),
  /** One unprivileged user per VM, out of this range; the group before the range may read image layers. */
  uid_first: z
    .number()
    .int()
    .min(
      65_537,
      'users and groups up to 65535 are the system’s and people’s, who could take over a VM of their user; write ' +
        '65537 at least',
    )
    .max(4_000_000_000)
    .default(1_900_000_000),
  uid_count: positiveInt.max(65_536).default(4_096),
  /** A guest that has not answered by then is given up. */
  boot_timeout_seconds: seconds.default(60),
  /** Keep the guest's serial console in the VM's run directory (for debugging; guests can write to it). */
  console: z.boolean().default(false),
});
