"""Workloads of this machine: by which marks a process is known, and which identity those marks earn."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

from crank.domain.identity import SpiffeId
from crank.domain.ids import TenantId
from crank.errors import InvalidRequest

EntryId = NewType("EntryId", str)

# Linux keeps the highest number for "no account".
_LAST_ACCOUNT = 2**32 - 2
PATH_CHARS_MAX = 4096
_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_UNIT = re.compile(r"[A-Za-z0-9:_.\\@-]{1,255}\.(service|scope)")


class SelectorKind(StrEnum):
    """What can be told of a process, each by the kernel and never by the process itself."""

    UID = "unix:uid"
    GID = "unix:gid"
    PATH = "unix:path"
    SHA256 = "unix:sha256"
    CGROUP = "unix:cgroup"
    UNIT = "systemd:unit"


# A program can be started, and steered, by whoever may run it: these alone say who runs it.
SAYS_WHO = frozenset({SelectorKind.UID, SelectorKind.GID, SelectorKind.CGROUP, SelectorKind.UNIT})


@dataclass(frozen=True, slots=True)
class Selector:
    """One mark of a process, written `unix:uid:1000`; made by `parse_selector`, or by who looked at the process."""

    kind: SelectorKind
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"


@dataclass(frozen=True, slots=True)
class WorkloadEntry:
    """What the owner registered: a process that bears all of these marks is this workload.

    hint            what the operator calls this identity towards its workload; empty for nothing
    ttl_sec         how long one certificate lives at most; None: as long as the authority's others
    federates_with  trust domains whose bundles are handed out with it
    """

    entry_id: EntryId
    tenant: TenantId
    spiffe_id: SpiffeId
    selectors: tuple[Selector, ...]
    created_us: int
    ttl_sec: int | None = None
    hint: str = ""
    dns_names: tuple[str, ...] = ()
    federates_with: tuple[str, ...] = ()


def parse_selector(text: str) -> Selector:
    """Accept `unix:uid:N`, `unix:gid:N`, `unix:path:/…`, `unix:sha256:…`, `unix:cgroup:/…`, `systemd:unit:…`.

    Raises InvalidRequest (`invalid_selector`).
    """
    family, _, rest = text.partition(":")
    word, colon, value = rest.partition(":")
    try:
        kind = SelectorKind(f"{family}:{word}")
    except ValueError:
        raise _invalid(text, f"Known: {', '.join(f'{kind}:…' for kind in SelectorKind)}.") from None
    wrong = f"{kind} takes {_TAKES[kind]}."
    if not colon or len(value) > PATH_CHARS_MAX or not _is_value(kind, value):
        raise _invalid(text, wrong)
    return Selector(kind, value)


_TAKES = {
    SelectorKind.UID: "the number of an account",
    SelectorKind.GID: "the number of a group",
    SelectorKind.PATH: "the whole path of a program, without '..' and links",
    SelectorKind.SHA256: "64 lower-case hexadecimal digits",
    SelectorKind.CGROUP: "the path of a control group, as in /proc/<pid>/cgroup",
    SelectorKind.UNIT: "the name of a system's unit, such as nginx.service",
}


def _is_value(kind: SelectorKind, value: str) -> bool:
    if kind in (SelectorKind.UID, SelectorKind.GID):
        # One writing for each number: entries and processes are compared as text.
        return _NUMBER.fullmatch(value) is not None and int(value) <= _LAST_ACCOUNT
    if kind is SelectorKind.SHA256:
        return _DIGEST.fullmatch(value) is not None
    if kind is SelectorKind.UNIT:
        return _UNIT.fullmatch(value) is not None
    return is_plain_path(value)


def is_plain_path(text: str) -> bool:
    """Tell whether a path is absolute, printable, and has no empty or dotted segment."""
    root, *segments = text.split("/")
    plain = root == "" and bool(segments) and not {"", ".", ".."} & set(segments)
    return text == "/" or (plain and text.isprintable())


def _invalid(text: str, fix: str) -> InvalidRequest:
    return InvalidRequest(
        f"{text[:120]!r} is no selector.", code="invalid_selector", field="selectors", fix=fix
    )
