"""Writes into the settings of other programs: whole or not at all, with what was there kept beside."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

from crank.bootstrap.files import write_whole
from crank.domain.rules.hosts import HOST_FILE_BYTES_MAX
from crank.errors import Conflict, InvalidRequest, TooLarge

BACKUPS_MAX = 99


def change(path: Path, rewrite: Callable[[str], str]) -> Path | None:
    """Rewrite a file by a rule, and return where the old one is kept; None when nothing had to change.

    A link is followed, so that who keeps settings elsewhere still does. Raises what the rule raises, TooLarge,
    InvalidRequest, Conflict (somebody else wrote meanwhile), OSError.
    """
    real = path.resolve()
    before = _read(real)
    text = "" if before is None else _decoded(before)
    after = rewrite(text)
    if after == text:
        return None
    backup = None if before is None else _keep(real, before)
    real.parent.mkdir(parents=True, exist_ok=True)
    if _read(real) != before:
        raise Conflict(
            f"{real} was changed by another program at this moment.",
            code="host_file_changed",
            field="file",
            fix="Close that program and run the command again.",
        )
    write_whole(real, after.encode(), mode=0o600 if before is None else stat.S_IMODE(real.stat().st_mode))
    return backup


def _read(real: Path) -> bytes | None:
    try:
        if real.stat().st_size > HOST_FILE_BYTES_MAX:
            raise TooLarge(f"{real} is larger than settings are.", code="host_file_too_large", field="file")
        return real.read_bytes()
    except FileNotFoundError:
        return None


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as fault:
        raise InvalidRequest(
            "The host's file is not UTF-8.", code="host_file_unreadable", field="file", fix="Save it as UTF-8 first."
        ) from fault


def _keep(real: Path, content: bytes) -> Path:
    """Keep the old content beside, under a name that nothing has yet, as private as it was."""
    for number in range(1, BACKUPS_MAX + 1):
        backup = real.with_name(f"{real.name}.before-crank" + ("" if number == 1 else f"-{number}"))
        try:
            descriptor = os.open(backup, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        except FileExistsError:
            continue
        with os.fdopen(descriptor, "wb") as kept:
            os.fchmod(kept.fileno(), stat.S_IMODE(real.stat().st_mode))
            kept.write(content)
        return backup
    raise Conflict(
        f"There are {BACKUPS_MAX} old copies of {real} already.", code="too_many_backups", field="file",
        fix=f"Remove some of {real.name}.before-crank-…",
    )  # fmt: skip
