"""Folders of the host that the launcher may show to jobs: opened by path, once, and checked after opening.

The launcher may be able to read what its caller may not. So a profile's root must lie beneath one of the
places that were named when the launcher started, and a mount must stand in the register that the
controller keeps. What is checked is what was opened: no path is looked up twice.
"""

import json
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from crank.errors import SandboxError
from crank.sandbox import kernel, mounts
from crank.sandbox.namespaces import Identity
from crank.sandbox.nest import Nest

_REGISTER_BYTES_MAX = 4 << 20


@dataclass(frozen=True, slots=True)
class Allowed:
    """Where folders may come from.

    roots     places beneath which profiles and modules lie; None where the caller could read everything itself
    register  file with the JSON list of the folders that may be mounted; None likewise
    """

    roots: tuple[str, ...] | None = None
    register: str | None = None

    def open_root(self, path: str) -> int:
        """Open a profile's folder. Raises SandboxError."""
        folder = _open_profile(path)
        real = _real(folder)
        if self.roots is not None and not any(Path(real).is_relative_to(root) for root in self.roots):
            os.close(folder)
            raise _refused("the profile", real)
        return folder

    def open_layer(self, path: str) -> int:
        """Open a file or folder that a module is imported from. Raises SandboxError."""
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError as fault:
            raise SandboxError(
                f"What the module is imported from cannot be opened: {fault.strerror}.",
                code="folder_missing",
                fix=_FIX,
                detail=path,
            ) from fault
        real = _real(opened)
        if self.roots is not None and not any(Path(real).is_relative_to(root) for root in self.roots):
            os.close(opened)
            raise _refused("the module", real)
        return opened

    def open_mount(self, name: str, path: str) -> int:
        """Open a folder that a job may read. Raises SandboxError."""
        folder = _open_mount(name, path)
        real = _real(folder)
        if self.register is not None and real not in _registered(self.register):
            os.close(folder)
            raise _refused(name, real)
        return folder


_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FIX = "Check that the folder exists and that the node's account may read it."


def _open_profile(path: str) -> int:
    try:
        return os.open(path, _FLAGS)
    except OSError as fault:
        raise SandboxError(
            f"The folder of the profile cannot be opened: {fault.strerror}.",
            code="folder_missing",
            fix=_FIX,
            detail=path,
        ) from fault


def _open_mount(name: str, path: str) -> int:
    try:
        return os.open(path, _FLAGS)
    except OSError as fault:
        raise SandboxError(
            f"The folder mounted as {name!r} cannot be opened: {fault.strerror}.",
            code="mount_missing",
            fix=_FIX,
            detail=path,
        ) from fault


def _real(folder: int) -> str:
    return os.readlink(f"/proc/self/fd/{folder}")


def _registered(register: str) -> set[str]:
    try:
        with open(register, "rb") as source:
            folders = json.loads(source.read(_REGISTER_BYTES_MAX))
    except (OSError, ValueError):
        return set()
    return set(folders) if isinstance(folders, list) else set()


def _refused(name: str, real: str) -> SandboxError:
    return SandboxError(
        f"The folder of {name} is not one that jobs of this node may see.",
        code="folder_not_allowed",
        fix="Register it with 'crank mount add', or build the profile where this node looks for it.",
        detail=real,
    )


def detach(folders: list[int], nest: Nest, identity: Identity) -> list[int]:
    """Copy folders into detached read-only trees that a child of the nest can put in place. Raises OSError.

    Without privilege nobody may copy a mount out here, so a process does it that has joined the nest's
    user namespace, in a copy of our mount namespace, and hands the trees back.
    """
    if not folders:
        return []
    if identity.privileged:
        return _detach_all(folders, identity)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        _be_copier(folders, nest, identity, theirs)
    theirs.close()
    try:
        raw, trees, _, _ = socket.recv_fds(ours, 1024, len(folders), socket.MSG_CMSG_CLOEXEC)
    finally:
        ours.close()
        os.waitpid(pid, 0)
    if len(trees) != len(folders):
        for tree in trees:
            os.close(tree)
        raise OSError(raw.decode("utf-8", "replace") or "the folders could not be copied")
    return trees


def _detach_all(folders: list[int], identity: Identity) -> list[int]:
    trees: list[int] = []
    try:
        for folder in folders:
            # One by one, so that those before a failure are closed again.
            trees.append(mounts.detach_folder(folder, identity))  # noqa: PERF401
    except OSError:
        for tree in trees:
            os.close(tree)
        raise
    return trees


def _be_copier(folders: list[int], nest: Nest, identity: Identity, answer: socket.socket) -> None:
    try:
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        kernel.enter(nest.init, kernel.CLONE_NEWUSER)
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.make_mounts_private()
        trees = [mounts.detach_folder(folder, identity) for folder in folders]
        socket.send_fds(answer, [b"trees"], trees)
    except OSError as fault:
        answer.send(str(fault).encode()[:1000])
    finally:
        os._exit(0)
