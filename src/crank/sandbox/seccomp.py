"""The system call filter: a list of what a job may ask of the kernel, compiled to BPF by our own code.

What is not listed answers ENOSYS, as on a kernel that never had it. What is known to be dangerous
answers EPERM, so that a job reads "not permitted" rather than "does not exist". Arguments are compared
in 32 bits where the kernel itself looks at 32 bits: a filter that compares 64 can be passed by setting
bits that the kernel then throws away.

Source of the BPF machine: Linux `Documentation/userspace-api/seccomp_filter.rst`, `linux/bpf_common.h`.
"""

import errno
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from crank.sandbox import guest_bare
from crank.sandbox.syscalls import Machine

_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP = 0x05  # BPF_JMP | BPF_JA
_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_IF_ATLEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_IF_BITS = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_KEEP_BITS = 0x54  # BPF_ALU | BPF_AND | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

# struct seccomp_data: nr, arch, instruction_pointer, args[6]; both machines are little-endian.
_NUMBER_AT = 0
_ARCH_AT = 4

ALLOW = 0x7FFF0000
KILL = 0x80000000
# Ask whoever holds the filter's listener, which refuses and remembers (seccomp_unotify(2)).
NOTIFY = 0x7FC00000


def refuse(number: int) -> int:
    """Return the filter's answer that makes a call fail with this errno."""
    return 0x00050000 | number


_EPERM = refuse(errno.EPERM)
_ENOSYS = refuse(errno.ENOSYS)

_ALLOWED = """
read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn
pread64 pwrite64 readv writev access pipe select sched_yield mremap msync mincore madvise dup dup2 pause nanosleep
getitimer alarm setitimer getpid sendfile sendto recvfrom sendmsg recvmsg shutdown getsockname getpeername setsockopt
getsockopt sendmmsg recvmmsg exit wait4 kill uname flock fsync fdatasync truncate ftruncate getdents getcwd chdir
fchdir rename mkdir rmdir creat link unlink symlink readlink chmod fchmod chown fchown lchown umask gettimeofday
getrlimit setrlimit getrusage sysinfo times getuid getgid geteuid getegid setpgid getppid getpgrp setsid getgroups
getresuid getresgid getpgid getsid capget rt_sigpending rt_sigtimedwait rt_sigqueueinfo rt_sigsuspend sigaltstack
utime statfs fstatfs getpriority setpriority sched_setparam sched_getparam sched_setscheduler sched_getscheduler
sched_get_priority_max sched_get_priority_min sched_rr_get_interval mlock munlock mlockall munlockall arch_prctl
gettid readahead getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr tkill time futex sched_setaffinity
sched_getaffinity epoll_create getdents64 set_tid_address restart_syscall fadvise64 timer_create timer_settime
timer_gettime timer_getoverrun timer_delete clock_gettime clock_getres clock_nanosleep exit_group epoll_wait epoll_ctl
tgkill utimes waitid openat mkdirat fchownat futimesat newfstatat unlinkat renameat linkat symlinkat readlinkat
fchmodat fchmodat2 faccessat faccessat2 pselect6 ppoll set_robust_list get_robust_list sync_file_range utimensat
epoll_pwait epoll_pwait2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime eventfd eventfd2 fallocate
epoll_create1 dup3 pipe2 preadv pwritev preadv2 pwritev2 rt_tgsigqueueinfo syncfs getcpu sched_getattr sched_setattr
renameat2 getrandom membarrier mlock2 copy_file_range pkey_mprotect pkey_alloc pkey_free statx rseq pidfd_send_signal
pidfd_open close_range openat2 futex_waitv futex_wake futex_wait futex_requeue get_mempolicy set_mempolicy
memfd_create
"""

_FORBIDDEN = """
socket connect accept accept4 bind listen unshare setns mount umount2 pivot_root chroot ptrace process_vm_readv
process_vm_writev pidfd_getfd kcmp process_madvise process_mrelease bpf userfaultfd perf_event_open keyctl add_key
request_key open_by_handle_at name_to_handle_at kexec_load kexec_file_load init_module finit_module delete_module
swapon swapoff reboot acct settimeofday clock_settime adjtimex clock_adjtime quotactl quotactl_fd syslog vmsplice
splice tee mbind migrate_pages move_pages set_mempolicy_home_node fanotify_init fanotify_mark lookup_dcookie iopl
ioperm modify_ldt seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self fsopen fsconfig fsmount
fspick open_tree move_mount mount_setattr mknod mknodat setuid setgid setreuid setregid setresuid setresgid setfsuid
setfsgid setgroups capset sethostname setdomainname vhangup nfsservctl sync setxattr lsetxattr fsetxattr removexattr
lremovexattr fremovexattr shmget shmat shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv msgctl mq_open
mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr memfd_secret ioprio_set remap_file_pages
"""

# Starting another program, or another process that runs this one's memory.
_FORKING = "fork vfork"
_STARTING = "execve execveat"

# linux/sched.h. CLONE_NEWTIME shares its bit with the exit signal and exists in clone3 and unshare only.
_CLONE_THREAD = 0x00010000
_CLONE_THREAD_FILES = _CLONE_THREAD | 0x00000400
_CLONE_NAMESPACES = 0x7E020000
_AF_UNIX = 1
# asm-generic/mman-common.h: memory shared without a file, and pages that the host keeps for somebody else.
_MAP_SHARED_ANONYMOUS = 0x21
_MAP_HUGETLB = 0x40000
_SO_SNDBUF = 7
# linux/sched.h: what runs when nobody else wants to, and alike, also with SCHED_RESET_ON_FORK.
_SCHED_LOWER = (3, 5, 0x40000003, 0x40000005)
_NEGATIVE = 0x80000000
_PERSONALITY_QUERY = 0xFFFFFFFF

# asm-generic/ioctls.h: questions about a descriptor, and the two switches that the standard library uses.
_IOCTLS = (0x5401, 0x540F, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
_TIOCSTI, _TIOCLINUX, _TIOCSCTTY, _TIOCCONS = 0x5412, 0x541C, 0x540E, 0x541D
# F_SETLEASE and F_NOTIFY act on read-only files that other jobs share (linux/fcntl.h).
_FCNTLS_REFUSED = (1024, 1026)
# Without namespaces the host's processes have numbers here, and files of the same account lie in reach of calls
# that take a path and ask for no descriptor. Landlock does not watch over these.
_ATTRIBUTES = """
chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes futimesat utimensat
"""
_SIGNALLING = "kill tgkill rt_sigqueueinfo rt_tgsigqueueinfo"
_SCHEDULING = "sched_setparam sched_setaffinity"
# Stands in a filter where the process that installs it puts its own number; no process can have it.
OWN_PID = guest_bare.OWN_PID
_ALL_BITS = 0xFFFFFFFF
# What a zygote needs beyond a job: to raise its children's walls and to end their processes.
_RAISING = "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self prctl prlimit64"

# F_SETOWN, F_SETSIG, F_SETOWN_EX: have the kernel signal somebody (asm-generic/fcntl.h).
_FCNTLS_SIGNALLING = (8, 10, 15)
# linux/prctl.h: questions, names, timer slack, THP, and what only makes the caller weaker.
_PRCTLS = (1, 2, 3, 15, 16, 21, 23, 27, 29, 30, 36, 37, 38, 39, 41, 42, 0x53564D41)


@dataclass(frozen=True, slots=True)
class Rule:
    """One look at an argument: `compare` it with any of `values`, answer `hit`, else `miss`.

    compare  `equal`: the low 32 bits are one of the values; `bits`: any bit of the one value is set; `all`: each
    then     a second rule to ask instead of answering `miss`
    """

    argument: int
    compare: str
    values: tuple[int, ...]
    hit: int
    miss: int = ALLOW
    then: "Rule | None" = None


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a filter grants beyond the ordinary.

    processes  the job may fork
    programs   the job may start programs, and processes for them
    devices    the job was given device nodes, which are driven by ioctl
    counted    a control group counts what the kernel holds for the job; else nothing that holds much unseen
    notify     what is dangerous is refused by the supervisor, which keeps it as evidence, not by the filter
    bare       no namespaces: nothing of other processes and of files' attributes may be changed
    scoped     Landlock keeps signals in the sandbox; else, where bare, a process reaches itself alone
    raising    a zygote that raises its children's walls by itself
    """

    processes: bool = False
    programs: bool = False
    devices: bool = False
    counted: bool = True
    notify: bool = False
    bare: bool = False
    scoped: bool = False
    raising: bool = False


_Instruction = tuple[int, int, int, int]


def _answers(machine: Machine, granted: Permissions) -> dict[int, "int | Rule"]:
    answers: dict[int, int | Rule] = {}

    def put(names: str, answer: "int | Rule") -> None:
        for name in names.split():
            if name in machine.numbers:
                answers[machine.numbers[name]] = answer

    forbidden = NOTIFY if granted.notify else _EPERM
    put(_ALLOWED, ALLOW)
    put(_FORBIDDEN, forbidden)
    forks = granted.processes or granted.programs
    put(_FORKING, ALLOW if forks else forbidden)
    put(_STARTING, ALLOW if granted.programs else forbidden)
    put("socketpair", Rule(0, "equal", (_AF_UNIX,), hit=ALLOW, miss=_EPERM))
    put("clone", Rule(0, "bits", (_CLONE_NAMESPACES,), hit=_EPERM, then=_cloned(forks=forks)))
    no_huge = Rule(3, "bits", (_MAP_HUGETLB,), hit=refuse(errno.ENOMEM))
    put("mmap", no_huge if granted.counted else Rule(3, "all", (_MAP_SHARED_ANONYMOUS,), hit=_EPERM, then=no_huge))
    if not granted.counted:
        _keep_countable(put, programs=granted.programs)
    if granted.devices:
        refused = (_TIOCSTI, _TIOCLINUX, _TIOCSCTTY, _TIOCCONS)
        put("ioctl", Rule(1, "equal", refused, hit=_EPERM))
    else:
        put("ioctl", Rule(1, "equal", _IOCTLS, hit=ALLOW, miss=refuse(errno.ENOTTY)))
    put("fcntl", Rule(1, "equal", _FCNTLS_REFUSED, hit=_EPERM))
    put("prctl", Rule(0, "equal", _PRCTLS, hit=ALLOW, miss=_EPERM))
    put("prlimit64", Rule(0, "equal", (0,), hit=ALLOW, miss=_EPERM))
    put("personality", Rule(0, "equal", (_PERSONALITY_QUERY,), hit=ALLOW, miss=_EPERM))
    if granted.bare:
        _keep_to_itself(put, forks=forks, scoped=granted.scoped)
    if granted.bare or not granted.counted:
        _keep_in_turn(put)
    if granted.raising:
        put(_RAISING, ALLOW)
    return answers


def _cloned(*, forks: bool) -> Rule:
    """Return what may be cloned: a thread shares the descriptors of its process, where they can be counted."""
    thread = Rule(0, "bits", (_CLONE_THREAD,), hit=_EPERM, miss=ALLOW if forks else _EPERM)
    return Rule(0, "all", (_CLONE_THREAD_FILES,), hit=ALLOW, then=thread)


def _keep_countable(put: Callable[[str, "int | Rule"], None], *, programs: bool) -> None:
    """Keep away what holds memory of the kernel that nobody could see from outside, or takes all of an account's."""
    put("memfd_create", _ENOSYS)
    # Done, and without effect: the kernel itself takes of a wish for a larger buffer as much as it likes.
    put("setsockopt", Rule(2, "equal", (_SO_SNDBUF,), hit=refuse(0)))
    if not programs:
        # Watches are counted by account: a job that had them all would leave the node none. Python has poll instead.
        put("epoll_create epoll_create1", _ENOSYS)


def _keep_to_itself(put: Callable[[str, "int | Rule"], None], *, forks: bool, scoped: bool) -> None:
    """Leave a job no way to act on what has only a number or a path, and is not its own."""
    itself = Rule(0, "equal", (0, OWN_PID), hit=ALLOW, miss=_EPERM)
    put(_ATTRIBUTES, _EPERM)
    put(_SCHEDULING, itself)
    put("tkill", Rule(0, "equal", (OWN_PID,), hit=ALLOW, miss=_EPERM))
    if not (forks and scoped):
        put(_SIGNALLING, itself)
        put("pidfd_open pidfd_send_signal", _EPERM)
    if not scoped:
        put("fcntl", Rule(1, "equal", (*_FCNTLS_REFUSED, *_FCNTLS_SIGNALLING), hit=_EPERM))


def _keep_in_turn(put: Callable[[str, "int | Rule"], None]) -> None:
    """Leave every process its turn: one that has none while others work cannot end either, long after it was killed.

    A control group has a turn of its own, whatever its members ask for. Elsewhere a process may ask for less; it is
    done, and without effect.
    """
    lower = Rule(2, "bits", (_NEGATIVE,), hit=_EPERM, miss=refuse(0))
    put("setpriority", _of_itself(replace(_of_itself(lower), argument=1)))
    put("sched_setscheduler", _of_itself(Rule(1, "equal", _SCHED_LOWER, hit=refuse(0))))
    put("sched_setattr", _EPERM)


def _of_itself(then: Rule) -> Rule:
    return Rule(0, "bits", (_ALL_BITS,), hit=_EPERM, then=then)


def _rule_code(rule: Rule) -> list[_Instruction]:
    low_word = 16 + 8 * rule.argument
    compare = _IF_BITS if rule.compare == "bits" else _IF_EQUAL
    after = _rule_code(rule.then) if rule.then else [(_RETURN, 0, 0, rule.miss)]
    count = len(rule.values)
    code: list[_Instruction] = [(_LOAD, 0, 0, low_word)]
    if rule.compare == "all":
        code.append((_KEEP_BITS, 0, 0, rule.values[0]))
    code += [(compare, count - 1 - place, 0, value) for place, value in enumerate(rule.values)]
    # Every hit jumps over the rest of the values to the answer; the last miss steps over it.
    code[-1] = (compare, 0, 1, rule.values[-1])
    return [*code, (_RETURN, 0, 0, rule.hit), *after]


def _segments(answers: dict[int, "int | Rule"]) -> list[tuple[int, "int | Rule"]]:
    """Return (first number, answer) pairs: runs of equal answers over the whole range of numbers."""
    segments: list[tuple[int, int | Rule]] = []
    for number in sorted({0, *answers, *(known + 1 for known in answers)}):
        answer = answers.get(number, _ENOSYS)
        if not segments or segments[-1][1] != answer:
            segments.append((number, answer))
    return segments


def _search(segments: Sequence[tuple[int, "int | Rule"]]) -> list[_Instruction]:
    """Compile a balanced search over the segments; the number stands in the accumulator."""
    if len(segments) == 1:
        answer = segments[0][1]
        return _rule_code(answer) if isinstance(answer, Rule) else [(_RETURN, 0, 0, answer)]
    middle = len(segments) // 2
    low, high = _search(segments[:middle]), _search(segments[middle:])
    if len(low) <= 255:
        return [(_IF_ATLEAST, len(low), 0, segments[middle][0]), *low, *high]
    return [(_IF_ATLEAST, 0, 1, segments[middle][0]), (_JUMP, 0, 0, len(low)), *low, *high]


def program(machine: Machine, granted: Permissions) -> bytes:
    """Return the filter as an array of struct sock_filter, ready for SECCOMP_SET_MODE_FILTER.

    A foreign calling convention (32-bit entry on a 64-bit machine) ends the process; the x32 numbers
    (bit 30) are outside every segment and answer ENOSYS.
    """
    code: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_IF_EQUAL, 1, 0, machine.audit_arch),
        (_RETURN, 0, 0, KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        *_search(_segments(_answers(machine, granted))),
    ]
    return pack(code)


def pack(code: Iterable[_Instruction]) -> bytes:
    """Encode instructions as struct sock_filter."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
