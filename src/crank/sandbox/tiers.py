"""The tiers that jobs can be walled in with, tried from the strongest down, and the runner of the second.

A tier is taken when its launcher has raised its walls and tried them from inside; never one below what the
operator allows.
"""

import errno
import os
from collections.abc import Callable, Sequence
from typing import BinaryIO

import structlog

from crank.domain.isolation import STRONGEST_FIRST, Tier, is_allowed
from crank.domain.profile import Limits
from crank.errors import SandboxError
from crank.sandbox.link import LauncherLink, launch, rehearse
from crank.sandbox.runner import NamespaceRunner
from crank.sandbox.session import NamespaceSession

NOTE = (
    "the tier 'landlock' held, without namespaces: the network was closed by the system call filter, with no empty network "
    "behind it, and /scratch, /out and /in are names that Python's own file functions know"
)
_log = structlog.get_logger(__name__)


class _Bounded:
    """Reads a file that must fit into what a job's folders may still take."""

    def __init__(self, source: BinaryIO, room_bytes: int) -> None:
        self._source = source
        self._room = room_bytes
        self.taken = 0

    def read(self, size: int = -1) -> bytes:
        """Read; raises OSError when it is more than there is room for."""
        chunk = self._source.read(size)
        self.taken += len(chunk)
        if self.taken > self._room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return chunk


class LandlockSession(NamespaceSession):
    """One sandbox of the tier `landlock`. Made by LandlockRunner.open."""

    tier: str = Tier.LANDLOCK
    note = NOTE

    def __init__(self, limits: Limits, *, programs: Sequence[str] = ()) -> None:
        super().__init__(limits, programs=programs)
        self._put_bytes = 0

    async def put_file(self, path: str, source: BinaryIO) -> None:
        """Copy a file to /scratch/<path>. Raises InvalidRequest, TooLarge: no mount keeps the bound here."""
        bounded = _Bounded(source, self.limits.disk_bytes - self._put_bytes)
        try:
            await super().put_file(path, bounded)  # type: ignore[arg-type]  # it is only read
        finally:
            self._put_bytes += bounded.taken


class LandlockRunner(NamespaceRunner):
    """Runs each job in a fresh process behind Landlock, a filter, limits and a control group, without namespaces."""

    tier: str = Tier.LANDLOCK
    session_kind = LandlockSession


RUNNERS: dict[Tier, type[NamespaceRunner]] = {Tier.NAMESPACES: NamespaceRunner, Tier.LANDLOCK: LandlockRunner}


def strongest(lowest: Tier, launching: Callable[[Tier], LauncherLink] = lambda tier: launch(tier=tier)) -> LauncherLink:
    """Return a launcher of the strongest tier whose walls stand here. Blocking. Raises SandboxError.

    lowest     the weakest that the operator allows; the fault then is that of the strongest, with how to allow
               a weaker one where that would work
    launching  starts a launcher of a tier
    """
    first: SandboxError | None = None
    for tier in STRONGEST_FIRST:
        try:
            link = launching(tier)
            try:
                rehearse(link)
            except BaseException:
                link.close()
                raise
        except SandboxError as fault:
            _log.warning("sandbox.tier_missing", tier=tier, code=fault.error_code, cause=fault.message)
            first = first or fault
            continue
        if first is None or is_allowed(tier, lowest):
            return link
        link.close()
        raise _would_be_weaker(first, tier)
    raise first or SandboxError("There is no tier to try.", code="tier_not_allowed")


def _would_be_weaker(first: SandboxError, tier: Tier) -> SandboxError:
    return SandboxError(
        f"{first.message.rstrip('.')}. The weaker tier '{tier}' would work here, and the operator does not allow it.",
        code=first.error_code,
        fix=f"{first.fix or ''} Or allow the weaker tier with CRANK_SANDBOX_TIER={tier}; "
        "docs/explanation/tiers.md says what it gives up.".strip(),
        detail=first.detail,
    )
