"""The system call filter of a worker process: what no program that only talks to its controller asks for.

A job's filter lists what is allowed; this one lists what is refused, because the worker runs the whole
standard library. It matters for what mounts and Landlock do not govern: every socket that is not plain TCP
(UDP, MPTCP and SCTP pass Landlock's port rules, a Unix socket's path does too), TCP that is opened by
sending, listeners, new namespaces, and the kernel's doors that exploits come through.
"""

import ctypes
import errno
import socket

from crank.sandbox import kernel
from crank.sandbox.seccomp import ALLOW, KILL, pack, refuse
from crank.sandbox.syscalls import Machine, native

_LOAD, _IF_EQUAL, _IF_ATLEAST, _IF_BITS, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_NUMBER_AT, _ARCH_AT = 0, 4
_X32_FIRST_NUMBER = 0x40000000

_REFUSED = """
bind listen accept accept4 unshare setns mount umount2 pivot_root chroot ptrace process_vm_readv process_vm_writev
pidfd_getfd kcmp process_madvise bpf userfaultfd perf_event_open keyctl add_key request_key open_by_handle_at
name_to_handle_at kexec_load kexec_file_load init_module finit_module delete_module swapon swapoff reboot acct
settimeofday clock_settime quotactl quotactl_fd syslog vmsplice mbind migrate_pages move_pages fanotify_init
fanotify_mark lookup_dcookie iopl ioperm modify_ldt io_uring_setup io_uring_enter io_uring_register fsopen fsconfig
fsmount fspick open_tree move_mount mount_setattr mknod mknodat sethostname setdomainname vhangup shmget semget msgget
mq_open memfd_secret personality
"""

_CLONE_NAMESPACES = 0x7E020000
_MSG_FASTOPEN = 0x20000000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_IPPROTO_TCP = 6
_SOCK_KIND_BITS = 0xF
# Which argument of a sending call carries its flags.
_SENDING = {"sendto": 3, "sendmsg": 2, "sendmmsg": 3}

_SET_MODE_FILTER = 1
_FILTER_FLAG_TSYNC = 1

_Instruction = tuple[int, int, int, int]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))


def _argument(place: int) -> _Instruction:
    # The low half of a little-endian argument: the kernel itself looks at 32 bits of all that we compare.
    return (_LOAD, 0, 0, 16 + 8 * place)


def _when(number: int | None, then: list[_Instruction]) -> list[_Instruction]:
    """Return code that runs `then`, which must end by returning, for one call; nothing where it does not exist."""
    return [] if number is None else [(_IF_EQUAL, 0, len(then), number), *then]


def _if_bits(argument: int, bits: int) -> list[_Instruction]:
    return [_argument(argument), (_IF_BITS, 0, 1, bits), (_RETURN, 0, 0, refuse(errno.EPERM)), (_RETURN, 0, 0, ALLOW)]


def _if_plain_tcp() -> list[_Instruction]:
    """Allow socket() for TCP over IPv4 and IPv6, by kind and by protocol."""
    return [
        _argument(0),
        (_IF_EQUAL, 1, 0, socket.AF_INET),
        (_IF_EQUAL, 0, 6, socket.AF_INET6),
        _argument(1),
        (_AND, 0, 0, _SOCK_KIND_BITS),
        (_IF_EQUAL, 0, 3, socket.SOCK_STREAM),
        _argument(2),
        (_IF_EQUAL, 2, 0, _IPPROTO_TCP),
        (_IF_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, refuse(errno.EPERM)),
        (_RETURN, 0, 0, ALLOW),
    ]


def program(machine: Machine) -> bytes:
    """Return the filter as an array of struct sock_filter."""
    numbers = machine.numbers
    forbid: list[_Instruction] = [(_RETURN, 0, 0, refuse(errno.EPERM))]
    code: list[_Instruction] = [
        (_LOAD, 0, 0, _ARCH_AT),
        (_IF_EQUAL, 1, 0, machine.audit_arch),
        (_RETURN, 0, 0, KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_IF_ATLEAST, 0, 1, _X32_FIRST_NUMBER),
        *forbid,
    ]
    for name in _REFUSED.split():
        code += _when(numbers.get(name), forbid)
    # glibc falls back to clone, whose flags a filter can see.
    code += _when(numbers.get("clone3"), [(_RETURN, 0, 0, refuse(errno.ENOSYS))])
    code += _when(numbers.get("clone"), _if_bits(0, _CLONE_NAMESPACES))
    for name, flags_at in _SENDING.items():
        code += _when(numbers.get(name), _if_bits(flags_at, _MSG_FASTOPEN))
    terminal = [_argument(1), (_IF_EQUAL, 1, 0, _TIOCSTI), (_IF_EQUAL, 0, 1, _TIOCLINUX), *forbid]
    code += _when(numbers.get("ioctl"), [*terminal, (_RETURN, 0, 0, ALLOW)])
    code += _when(numbers.get("socket"), _if_plain_tcp())
    return pack([*code, (_RETURN, 0, 0, ALLOW)])


def apply() -> None:
    """Filter the calls of every thread of this process from now on. Needs no_new_privs. Raises OSError."""
    code = program(native())
    loaded = _Program(len(code) // 8, code)
    kernel.syscall("seccomp", _SET_MODE_FILTER, _FILTER_FLAG_TSYNC, ctypes.byref(loaded))
