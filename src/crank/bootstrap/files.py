"""Small files that must be whole or absent: secrets, the node's name, what runs now."""

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from crank.config import Settings
from crank.errors import ConfigurationError, Conflict


def write_whole(path: Path, content: bytes, *, mode: int) -> None:
    """Write a file so that a reader, or a crash, sees the old one or the new one. Raises OSError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as target:
            os.fchmod(target.fileno(), mode)
            target.write(content)
            target.flush()
            os.fsync(target.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file, or None when there is no such file or it is none."""
    try:
        document = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def make_home(settings: Settings) -> None:
    """Make the node's folders, private to this user. Raises ConfigurationError."""
    try:
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (settings.controller_dir, settings.worker_dir, settings.run_dir, settings.logs_dir):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings.controller_dir.chmod(0o700)
        settings.worker_dir.chmod(0o700)
    except OSError as fault:
        raise ConfigurationError(
            f"The node's home {settings.home} cannot be used: {fault.strerror}.",
            code="home_unusable",
            field="home",
            fix="Make it writable for this user, or choose another folder with CRANK_HOME.",
        ) from fault


def node_id(settings: Settings) -> str:
    """Return the node's lasting name, made at first use."""
    path = settings.home / "node-id"
    try:
        return path.read_text("ascii").strip()
    except FileNotFoundError:
        name = f"n-{secrets.token_hex(8)}"
        write_whole(path, name.encode(), mode=0o644)
        return name


def worker_id_of(settings: Settings) -> str:
    """Return the name of this node's own worker in the trust domain."""
    return f"{settings.worker_name}-{node_id(settings)}"


@contextlib.contextmanager
def held_lock(settings: Settings) -> Iterator[None]:
    """Hold the node's lock. Raises Conflict when another node holds it.

    The kernel frees it when the process ends, however that happens.
    """
    descriptor = os.open(settings.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"A node runs already in {settings.home}.",
                code="node_running",
                fix="Use it ('crank node info'), stop it ('crank down'), or choose another CRANK_HOME.",
            ) from None
        yield
    finally:
        os.close(descriptor)


def is_locked(settings: Settings) -> bool:
    """Tell whether a node holds the lock now."""
    try:
        descriptor = os.open(settings.lock_file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
