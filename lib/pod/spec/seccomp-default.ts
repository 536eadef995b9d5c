/**
 * The seccomp profile `RuntimeDefault`: what ordinary programs call is allowed, everything else fails
 * with EPERM, so a system call that a newer kernel brings is refused until somebody has looked at it.
 *
 * Left out on purpose: kernel keys (add_key, keyctl, request_key), io_uring and userfaultfd (most kernel
 * exploits of the last years pass through them), old numbers that leak kernel state (sysfs, ustat,
 * _sysctl), and everything that changes the kernel (kexec, modules, swap, quota) without its capability.
 */
import type { OciSeccomp, OciSyscallArg, OciSyscallRule } from '../../wire/ocispec/types.js';

const errnoEperm = 1;
const errnoEnosys = 38;

const architectures = ['SCMP_ARCH_X86_64', 'SCMP_ARCH_X86', 'SCMP_ARCH_X32'];

/** Allowed for everybody, by what they are for. */
const everybody: Readonly<Record<string, string>> = {
  'open files and directories':
    'access chdir chmod chmod32 chown chown32 close close_range creat faccessat faccessat2 fchdir fchmod ' +
    'fchmodat fchmodat2 fchown fchown32 fchownat getcwd getdents getdents64 lchown lchown32 link linkat mkdir ' +
    'mkdirat mknod mknodat open openat openat2 readlink readlinkat rename renameat renameat2 rmdir symlink ' +
    'symlinkat umask unlink unlinkat name_to_handle_at',
  'read and write':
    'copy_file_range fadvise64 fadvise64_64 fallocate fdatasync fsync ftruncate ftruncate64 _llseek lseek ' +
    'pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readv sendfile sendfile64 splice sync ' +
    'sync_file_range syncfs tee truncate truncate64 vmsplice write writev cachestat',
  'look at files and their attributes':
    'fgetxattr flistxattr fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 futimesat getxattr ' +
    'lgetxattr listxattr llistxattr lremovexattr lsetxattr lstat lstat64 newfstatat oldfstat oldlstat oldstat ' +
    'removexattr setxattr stat stat64 statfs statfs64 statx utime utimensat utimensat_time64 utimes',
  'descriptors, locks and watches':
    'dup dup2 dup3 fcntl fcntl64 flock inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl ' +
    'memfd_create memfd_secret pidfd_open pidfd_send_signal pipe pipe2 landlock_add_rule ' +
    'landlock_create_ruleset landlock_restrict_self',
  'wait for events':
    'epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old ' +
    'eventfd eventfd2 _newselect poll ppoll ppoll_time64 pselect6 pselect6_time64 select',
  memory:
    'brk get_mempolicy madvise mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap msync munlock ' +
    'munlockall munmap membarrier pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages ' +
    'set_mempolicy_home_node',
  'processes and threads':
    'alarm arch_prctl capget capset execve execveat exit exit_group fork futex futex_time64 futex_waitv ' +
    'get_robust_list get_thread_area getcpu getpgid getpgrp getpid getppid getpriority getrlimit getrusage ' +
    'getsid gettid ioprio_get ioprio_set modify_ldt nanosleep pause prctl prlimit64 ptrace restart_syscall ' +
    'rseq sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam ' +
    'sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr ' +
    'sched_setparam sched_setscheduler sched_yield seccomp set_robust_list set_thread_area set_tid_address ' +
    'setpgid setpriority setrlimit setsid sysinfo times ugetrlimit uname vfork wait4 waitid waitpid ' +
    'process_vm_readv process_vm_writev kcmp',
  'users and groups':
    'getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32 getresuid ' +
    'getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 ' +
    'setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32',
  signals:
    'kill rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend ' +
    'rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack signalfd signalfd4 sigprocmask ' +
    'sigreturn tgkill tkill',
  'clocks and timers':
    'clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 ' +
    'clock_adjtime clock_adjtime64 adjtimex getitimer gettimeofday setitimer time timer_create timer_delete ' +
    'timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create ' +
    'timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64',
  'sockets (which families may be opened is below)':
    'accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg ' +
    'recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketpair',
  'System V and POSIX IPC':
    'ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend ' +
    'mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop ' +
    'semtimedop_time64 shmat shmctl shmdt shmget',
  'asynchronous I/O of libaio':
    'io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit',
  'random numbers': 'getrandom',
};

/** Allowed with a capability: the kernel checks it again, the profile keeps the code behind it unreachable. */
const withCapability: Readonly<Record<string, string>> = {
  CAP_DAC_READ_SEARCH: 'open_by_handle_at',
  CAP_SYS_ADMIN:
    'bpf clone clone3 fanotify_init fanotify_mark fsconfig fsmount fsopen fspick lookup_dcookie mount ' +
    'mount_setattr move_mount open_tree perf_event_open pivot_root quotactl quotactl_fd setdomainname ' +
    'sethostname setns syslog umount umount2 unshare',
  CAP_SYS_BOOT: 'reboot kexec_load kexec_file_load',
  CAP_SYS_CHROOT: 'chroot',
  CAP_SYS_MODULE: 'delete_module init_module finit_module',
  CAP_SYS_PACCT: 'acct',
  CAP_SYS_PTRACE: 'pidfd_getfd process_madvise',
  CAP_SYS_RAWIO: 'iopl ioperm',
  CAP_SYS_TIME: 'settimeofday stime clock_settime clock_settime64',
  CAP_SYS_TTY_CONFIG: 'vhangup',
  CAP_SYS_NICE: 'mbind set_mempolicy move_pages migrate_pages',
  CAP_SYSLOG: 'syslog',
  CAP_BPF: 'bpf',
  CAP_PERFMON: 'perf_event_open',
};

/** CLONE_NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET | NEWNS: a new namespace, which is mount rights in disguise. */
const cloneNamespaceFlags = 0x7e02_0000;

/** Execution domains that change nothing but how a program sees itself; 0xffffffff only asks. */
const personalities = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

const familyAlg = 38;
const familyVsock = 40;

/** AF_ALG reaches much rarely used kernel code; AF_VSOCK would reach past the pod's network. */
const socketRules: readonly OciSyscallRule[] = [
  allow(['socket'], [arg(0, 'SCMP_CMP_LT', familyAlg)]),
  allow(['socket'], [arg(0, 'SCMP_CMP_EQ', 39)]),
  allow(['socket'], [arg(0, 'SCMP_CMP_GT', familyVsock)]),
];

/** The profile for a container with these (permitted) capabilities; a fresh object each time. */
export function defaultSeccomp(capabilities: readonly string[]): OciSeccomp {
  const granted = Object.entries(withCapability).flatMap(([capability, names]) =>
    capabilities.includes(capability) ? [allow(words(names))] : [],
  );
  return {
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: errnoEperm,
    architectures,
    syscalls: [
      ...Object.values(everybody).map((names) => allow(words(names))),
      ...socketRules,
      ...personalities.map((value) => allow(['personality'], [arg(0, 'SCMP_CMP_EQ', value)])),
      ...(capabilities.includes('CAP_SYS_ADMIN') ? [] : cloneRules),
      ...granted,
    ],
  };
}

/**
 * clone3 passes its flags in memory, where a filter cannot look. ENOSYS (not EPERM) makes C libraries fall
 * back to clone, whose flags can be seen.
 */
const cloneRules: readonly OciSyscallRule[] = [
  allow(['clone'], [{ index: 0, value: cloneNamespaceFlags, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }]),
  { names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: errnoEnosys },
];

function allow(names: readonly string[], args?: readonly OciSyscallArg[]): OciSyscallRule {
  return { names, action: 'SCMP_ACT_ALLOW', ...(args === undefined ? {} : { args }) };
}

function arg(index: number, op: string, value: number): OciSyscallArg {
  return { index, value, op };
}

function words(text: string): string[] {
  return text.split(' ');
}
