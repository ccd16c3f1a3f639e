"""The socket of this machine's workloads, wired: bound before the node is ready, served once what speaks gRPC is loaded."""

import asyncio
import contextlib
import hashlib
import os
import socket
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import platformdirs
import structlog

from crank.adapters.callers import SOCKET_PATH_BYTES_MAX, KernelWitness
from crank.adapters.fresh_keys import FreshKeys
from crank.adapters.jwt_svid import JoseSvidReader
from crank.config import Settings
from crank.controller.desk import Desk
from crank.controller.revocation_list import RevocationLists
from crank.controller.svids import Svids
from crank.domain.json import JsonObject
from crank.errors import ConfigurationError
from crank.sandbox.link import allow_descriptors

if TYPE_CHECKING:
    from crank.api.spiffe.door import Door

_SOCKET_NAME = "spiffe.sock"
# A connection is a descriptor; many systems let a process have but 1 024 unless it asks for more.
_DESCRIPTORS_MAX = 16_384
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Served:
    """A socket that is there.

    told    what the node says of it
    opened  to be set once the node is ready; what serves the socket is loaded then, in nobody's way
    """

    told: JsonObject
    opened: asyncio.Event


@contextlib.asynccontextmanager
async def served(settings: Settings, desk: Desk, lists: RevocationLists) -> AsyncIterator[Served]:
    """Serve the socket for this while. Raises ConfigurationError.

    Callers may connect at once; they are answered as soon as the services are loaded.
    """
    allow_descriptors(_DESCRIPTORS_MAX)
    path = socket_path(settings)
    witness = KernelWitness(desk.clock)
    listening = witness.listen(str(path), shared=settings.spiffe_shared)
    others = None if desk.trust is None else desk.trust.bundles
    svids = Svids(desk, FreshKeys(), JoseSvidReader(), others, lists)
    await svids.start()
    told = Served({"spiffe_socket": f"unix://{quote(str(path))}"}, asyncio.Event())
    opening = asyncio.create_task(_open(told.opened, svids, witness, listening), name="open-spiffe")
    try:
        yield told
    finally:
        opening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await opening
        listening.close()
        await svids.stop()
        _remove(path, settings)


async def _open(ready: asyncio.Event, svids: Svids, witness: KernelWitness, listening: socket.socket) -> None:
    """Serve until cancelled."""
    await ready.wait()
    try:
        door_of = await asyncio.to_thread(_load)
        door = door_of(svids, witness, listening)
    except ImportError as fault:
        _log.error("spiffe_not_served", cause=repr(fault))
        return
    door.open()
    try:
        await asyncio.Event().wait()
    finally:
        await door.close()


def _load() -> "type[Door]":
    from crank.api.spiffe.door import Door

    return Door


def socket_path(settings: Settings) -> Path:
    """Return where the socket is: where the operator said, in the home, or where its name is short enough.

    Raises ConfigurationError (`spiffe_socket_too_long`, `spiffe_socket_unreachable`, `spiffe_socket_failed`).
    """
    if settings.spiffe_socket is not None:
        _check(settings.spiffe_socket, shared=settings.spiffe_shared)
        return settings.spiffe_socket
    usual = settings.run_dir / _SOCKET_NAME
    if _fits(usual):
        return usual
    mark = hashlib.sha256(os.fsencode(settings.home)).hexdigest()[:12]
    for place in (platformdirs.user_runtime_path(), Path("/tmp")):  # noqa: S108 - a folder of our own is made there
        folder = place / f"crank-{os.geteuid()}-{mark}"
        if place.is_dir() and os.access(place, os.W_OK) and _fits(folder / _SOCKET_NAME):
            _make_own(folder)
            return folder / _SOCKET_NAME
    raise _too_long(usual)


def _remove(path: Path, settings: Settings) -> None:
    path.unlink(missing_ok=True)
    if settings.spiffe_socket is None and path.parent != settings.run_dir:
        # Made for it alone.
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX


def _too_long(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"The socket {path} has a longer name than a Unix socket can have ({SOCKET_PATH_BYTES_MAX} bytes).",
        code="spiffe_socket_too_long",
        field="spiffe_socket",
        fix="Set CRANK_SPIFFE_SOCKET to a shorter path, or move the home.",
    )


def _check(path: Path, *, shared: bool) -> None:
    if not _fits(path):
        raise _too_long(path)
    closed = next((each for each in path.parents if shared and not _lets_others_in(each)), None)
    if closed is not None or not path.parent.is_dir():
        raise ConfigurationError(
            f"The folder {closed or path.parent} of the socket {'is closed to others' if closed else 'does not exist'}.",
            code="spiffe_socket_unreachable",
            field="spiffe_socket",
            fix="Make the folder, owned by this account, and let others enter it ('chmod o+x') if they shall connect.",
        )


def _lets_others_in(folder: Path) -> bool:
    try:
        return bool(folder.stat().st_mode & stat.S_IXOTH)
    except OSError:
        return True


def _make_own(folder: Path) -> None:
    """Make a folder in a place that others write to, too, and see to it that it is ours."""
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ConfigurationError(
            f"{folder} is not a folder of this account alone.",
            code="spiffe_socket_failed",
            field="spiffe_socket",
            fix="Remove it, or set CRANK_SPIFFE_SOCKET.",
        )
