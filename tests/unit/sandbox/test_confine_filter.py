"""The worker's filter, run in a small model of the kernel's BPF machine."""

import errno
import socket
import struct

import pytest

from crank.sandbox.confine_filter import program
from crank.sandbox.seccomp import ALLOW, KILL, refuse
from crank.sandbox.syscalls import AARCH64, X86_64, Machine

_EPERM, _ENOSYS = refuse(errno.EPERM), refuse(errno.ENOSYS)
_MACHINES = pytest.mark.parametrize("machine", [X86_64, AARCH64], ids=lambda machine: machine.name)
_HIGH_BITS = 0xDEAD << 32


def run(code: bytes, arch: int, number: int, *args: int) -> int:
    """Interpret the filter over one call, as seccomp(2) does, and return its answer."""
    words = [*args, 0, 0, 0, 0, 0, 0][:6]
    call = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, arch, 0, *words)
    place = accumulator = 0
    while True:
        operation, if_true, if_false, operand = struct.unpack_from("=HBBI", code, 8 * place)
        place += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", call, operand)
        elif operation == 0x54:
            accumulator &= operand
        elif operation == 0x06:
            return int(operand)
        else:
            test = {0x15: accumulator == operand, 0x35: accumulator >= operand, 0x45: bool(accumulator & operand)}
            place += if_true if test[operation] else if_false


def ask(machine: Machine, name: str, *args: int) -> int:
    """Return the filter's answer to a call by name."""
    return run(program(machine), machine.audit_arch, machine.numbers[name], *args)


@_MACHINES
def test_ordinary_calls_pass(machine: Machine) -> None:
    """What a Python program does all day is allowed, threads and programs too."""
    for name in ("read", "openat", "mmap", "connect", "epoll_ctl", "sendmsg", "socketpair", "execve", "futex", "kill"):
        assert ask(machine, name) == ALLOW
    assert ask(machine, "clone", 0x003D0F00) == ALLOW
    assert ask(machine, "clone3") == _ENOSYS


@_MACHINES
def test_only_plain_tcp_gets_a_socket(machine: Machine) -> None:
    """TCP over IPv4 and IPv6 by its kind and protocol; every other family, kind and protocol is refused."""
    flags = socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    for family in (socket.AF_INET, socket.AF_INET6):
        for protocol in (0, 6):
            assert ask(machine, "socket", family, socket.SOCK_STREAM | flags, protocol) == ALLOW
        for kind, protocol in ((2, 0), (3, 6), (5, 0), (1, 132), (1, 262), (1, 17)):
            assert ask(machine, "socket", family, kind | flags, protocol) == _EPERM
    for family in (*range(2), *range(3, 10), *range(11, 64)):
        assert ask(machine, "socket", family, socket.SOCK_STREAM) == _EPERM


@_MACHINES
def test_bits_that_the_kernel_drops_open_nothing(machine: Machine) -> None:
    """High halves of arguments change no answer."""
    assert ask(machine, "socket", socket.AF_UNIX | _HIGH_BITS, 1) == _EPERM
    assert ask(machine, "ioctl", 0, 0x5412 | _HIGH_BITS) == _EPERM
    assert ask(machine, "clone", 0x10000000 | _HIGH_BITS) == _EPERM
    assert ask(machine, "sendto", 0, 0, 0, 0x20000000 | _HIGH_BITS) == _EPERM


@_MACHINES
@pytest.mark.parametrize(
    "name", ["bind", "listen", "accept4", "unshare", "setns", "mount", "ptrace", "bpf", "io_uring_setup", "keyctl"]
)
def test_what_a_worker_never_needs_is_refused(machine: Machine, name: str) -> None:
    """Listeners, namespaces, mounts, tracing and the kernel's rarely used doors answer EPERM."""
    assert ask(machine, name) == _EPERM


@_MACHINES
def test_opening_a_connection_by_sending_is_refused(machine: Machine) -> None:
    """MSG_FASTOPEN connects without connect(2), where no port rule looks; each sending call is covered."""
    for name, place in (("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)):
        args = [0, 0, 0, 0]
        assert ask(machine, name, *args) == ALLOW
        args[place] = 0x20004000
        assert ask(machine, name, *args) == _EPERM


@_MACHINES
def test_foreign_entries_are_closed(machine: Machine) -> None:
    """The 32-bit entry ends the process; the x32 numbers are refused."""
    code = program(machine)
    assert run(code, 0x40000003, 1) == KILL
    assert run(code, machine.audit_arch, 0x40000000 | machine.numbers["read"]) == _EPERM
    assert len(code) // 8 < 400
