"""The filter, run in a small model of the kernel's BPF machine over every number and the arguments that matter."""

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.sandbox.seccomp import ALLOW, KILL, Permissions, program, refuse
from crank.sandbox.syscalls import AARCH64, X86_64, Machine

_EPERM, _ENOSYS, _ENOTTY = (refuse(number) for number in (errno.EPERM, errno.ENOSYS, errno.ENOTTY))
_MACHINES = pytest.mark.parametrize("machine", [X86_64, AARCH64], ids=lambda machine: machine.name)


def run(code: bytes, arch: int, number: int, *args: int) -> int:
    """Interpret a filter over one call, as seccomp(2) does, and return its answer."""
    words = [*args, 0, 0, 0, 0, 0, 0][:6]
    call = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *(word & (2**64 - 1) for word in words))
    place = accumulator = 0
    for _ in range(10_000):
        operation, if_true, if_false, operand = struct.unpack_from("=HBBI", code, 8 * place)
        place += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", call, operand)
        elif operation == 0x05:
            place += operand
        elif operation == 0x06:
            return int(operand)
        else:
            if operation == 0x54:
                accumulator &= operand
                continue
            test = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x45: bool(accumulator & operand)}
            place += if_true if test[operation] else if_false
    raise AssertionError("the filter does not end")


def ask(machine: Machine, name: str, *args: int, granted: Permissions | None = None) -> int:
    """Return the filter's answer to a call by name."""
    return run(program(machine, granted or Permissions()), machine.audit_arch, machine.numbers[name], *args)


@_MACHINES
@pytest.mark.parametrize("granted", [Permissions(), Permissions(processes=True, devices=True, counted=False)])
def test_every_number_has_an_answer(machine: Machine, granted: Permissions) -> None:
    """No number makes the filter wander, and what is in no list answers ENOSYS."""
    code = program(machine, granted)
    known = set(machine.numbers.values())
    for number in [*range(700), 0x3FFFFFFF, 0x40000000, 0x40000029, 0x7FFFFFFF, 0xFFFFFFFF]:
        answer = run(code, machine.audit_arch, number)
        assert answer in (ALLOW, _EPERM, _ENOSYS, _ENOTTY, refuse(0))
        if number not in known:
            assert answer == _ENOSYS
    assert len(code) // 8 < 400


@_MACHINES
@pytest.mark.parametrize(
    "name",
    [
        *("socket", "connect", "bind", "listen", "accept4", "unshare", "setns", "mount", "umount2", "pivot_root"),
        *("chroot", "ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "process_madvise"),
        *("bpf", "userfaultfd", "perf_event_open", "keyctl", "add_key", "request_key", "open_by_handle_at"),
        *("name_to_handle_at", "kexec_load", "init_module", "finit_module", "swapon", "reboot", "acct", "quotactl"),
        *("settimeofday", "clock_settime", "syslog", "vmsplice", "splice", "fanotify_init", "seccomp", "open_tree"),
        *("move_mount", "fsopen", "mount_setattr", "landlock_restrict_self", "mknodat", "setresuid", "setgroups"),
        *("capset", "sethostname", "shmget", "msgget", "semget", "mq_open"),
    ],
)
def test_what_is_dangerous_is_not_permitted(machine: Machine, name: str) -> None:
    """Every way to reach further than a job may answers EPERM, whatever else is granted."""
    for granted in (Permissions(), Permissions(processes=True, devices=True)):
        for argument in (0, 1, 2**31, 2**32 | 1):
            assert ask(machine, name, argument, granted=granted) == _EPERM


@_MACHINES
@pytest.mark.parametrize("name", ["clone3", "io_uring_setup", "io_uring_enter", "io_uring_register", "io_setup"])
def test_what_cannot_be_judged_does_not_exist(machine: Machine, name: str) -> None:
    """Calls whose arguments a filter cannot see answer ENOSYS, so that libraries fall back to those it can."""
    assert ask(machine, name) == _ENOSYS


@_MACHINES
def test_foreign_entries_end_the_process(machine: Machine) -> None:
    """The 32-bit entry of the same machine, and every other calling convention, is fatal."""
    code = program(machine, Permissions())
    for arch in (
        0x40000003,
        0x40000028,
        0,
        0xFFFFFFFF,
        *({X86_64.audit_arch, AARCH64.audit_arch} - {machine.audit_arch}),
    ):
        assert run(code, arch, 0) == KILL


@_MACHINES
@given(flags=st.integers(0, 2**64 - 1))
def test_clone_never_makes_a_namespace(machine: Machine, flags: int) -> None:
    """No combination of flags passes with a namespace in it, or a thread with descriptors of its own; without programs, only threads."""
    namespaces = 0x7E020000
    thread = 0x00010000
    files = 0x00000400
    expected = _EPERM if flags & namespaces or (flags & thread and not flags & files) else ALLOW
    assert ask(machine, "clone", flags, granted=Permissions(processes=True)) == expected
    alone = ALLOW if flags & thread and not flags & namespaces else _EPERM
    assert ask(machine, "clone", flags | files) == alone


@_MACHINES
@given(family=st.integers(0, 2**64 - 1))
def test_only_unix_pairs(machine: Machine, family: int) -> None:
    """The family is judged by the 32 bits that the kernel looks at."""
    expected = ALLOW if family & 0xFFFFFFFF == 1 else _EPERM
    assert ask(machine, "socketpair", family, 1) == expected


@_MACHINES
@given(high=st.integers(0, 2**32 - 1), call=st.sampled_from([0x5412, 0x541C, 0x540E, 0x541D]))
def test_terminal_tricks_fail_with_any_high_bits(machine: Machine, high: int, call: int) -> None:
    """Typing into a terminal is refused however the number is dressed."""
    assert ask(machine, "ioctl", 0, high << 32 | call) == _ENOTTY
    assert ask(machine, "ioctl", 0, high << 32 | call, granted=Permissions(devices=True)) == _EPERM


@_MACHINES
def test_new_processes_need_permission(machine: Machine) -> None:
    """Programs start only where the profile lists programs; leave to fork is not leave to start one."""
    for name in ("execve", "execveat"):
        assert ask(machine, name) == _EPERM
        assert ask(machine, name, granted=Permissions(processes=True)) == _EPERM
        assert ask(machine, name, granted=Permissions(programs=True)) == ALLOW
    for granted in (Permissions(processes=True), Permissions(programs=True)):
        assert ask(machine, "clone", 17, granted=granted) == ALLOW
    assert ask(machine, "clone", 17) == _EPERM


@_MACHINES
def test_ordinary_work_is_allowed(machine: Machine) -> None:
    """What an interpreter, numpy and threads need passes."""
    for name in (
        "read",
        "write",
        "openat",
        "mmap",
        "futex",
        "getrandom",
        "epoll_ctl",
        "pipe2",
        "rt_sigaction",
        "exit_group",
    ):
        assert ask(machine, name) == ALLOW
    assert ask(machine, "ioctl", 1, 0x5401) == ALLOW
    assert ask(machine, "prctl", 15) == ALLOW
    assert ask(machine, "prlimit64", 0) == ALLOW
    assert ask(machine, "prlimit64", 1) == _EPERM
    assert ask(machine, "fcntl", 3, 1024) == _EPERM
    assert ask(machine, "fcntl", 3, 1) == ALLOW
    assert ask(machine, "personality", 0xFFFFFFFF) == ALLOW
    assert ask(machine, "personality", 0x40000) == _EPERM
    assert ask(machine, "memfd_create", granted=Permissions(counted=False)) == _ENOSYS


@_MACHINES
@given(flags=st.integers(0, 2**64 - 1))
def test_memory_that_cannot_be_seen_needs_somebody_who_counts_it(machine: Machine, flags: int) -> None:
    """Without a control group no memory is shared without a file; pages that the host keeps are for nobody."""
    huge = refuse(errno.ENOMEM) if flags & 0x40000 else ALLOW
    assert ask(machine, "mmap", 0, 4096, 3, flags) == huge
    shared = flags & 0x21 == 0x21
    assert ask(machine, "mmap", 0, 4096, 3, flags, granted=Permissions(counted=False)) == (_EPERM if shared else huge)


@_MACHINES
def test_what_the_kernel_holds_uncounted_is_kept_small(machine: Machine) -> None:
    """Without a control group a larger buffer has no effect, and watches are for programs alone, which cannot do without."""
    uncounted = Permissions(counted=False)
    assert ask(machine, "setsockopt", 3, 1, 7, granted=uncounted) == refuse(0)
    assert ask(machine, "setsockopt", 3, 1, 8, granted=uncounted) == ALLOW
    assert ask(machine, "setsockopt", 3, 1, 7) == ALLOW
    assert ask(machine, "epoll_create1", granted=uncounted) == _ENOSYS
    assert ask(machine, "epoll_create1", granted=Permissions(counted=False, programs=True)) == ALLOW
    assert ask(machine, "epoll_create1") == ALLOW


@_MACHINES
@pytest.mark.parametrize("bare", [False, True])
def test_no_process_gives_up_its_turn(machine: Machine, *, bare: bool) -> None:
    """One that ran only when nobody else wants to could not end either; asking for less is done, and has no effect."""
    granted = Permissions(bare=bare, counted=bare)
    assert ask(machine, "setpriority", 0, 0, 19, granted=Permissions()) == ALLOW
    done = refuse(0)
    assert ask(machine, "setpriority", 0, 0, 19, granted=granted) == done
    for which, who, value in ((0, 0, -1), (0, 1, 19), (1, 0, 19), (2, 0, 19)):
        assert ask(machine, "setpriority", which, who, value, granted=granted) == _EPERM
    for policy in (3, 5, 0x40000005):
        assert ask(machine, "sched_setscheduler", 0, policy, granted=granted) == done
        assert ask(machine, "sched_setscheduler", 1, policy, granted=granted) == _EPERM
    assert ask(machine, "sched_setscheduler", 0, 0, granted=granted) == ALLOW
    assert ask(machine, "sched_setattr", 0, granted=granted) == _EPERM
