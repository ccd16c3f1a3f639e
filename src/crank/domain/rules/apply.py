"""Applying a job's files to a folder of its user: which names may be written, what each file would do, the diff.

A job is a stranger: so are the names and the bytes that it leaves. Nothing here opens a file.
"""

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

PATH_BYTES_MAX = 1024
STEP_BYTES_MAX = 255
# Beyond these a diff is neither computed (its time grows with the square) nor read by anybody.
DIFF_BYTES_MAX = 1 << 20
DIFF_LINES_MAX = 1_000
SHOWN_LINES_MAX = 200
SHOWN_CHARS_MAX = 400
_AROUND = 3
_NO_NEWLINE = "\n\\ No newline at end of file"
# What the clock of a file system may lag behind the clock that jobs are timed by.
_LAG_US = 20_000


class Change(StrEnum):
    """What applying a file would do."""

    NEW = "new"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What applying one file would do; `reason` says why a conflict is one."""

    change: Change
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What stands at a path of the user's folder now; `blocked` says why nothing may be written there.

    sha256  None: nothing stands there
    """

    sha256: str | None = None
    size_bytes: int = 0
    changed_us: int = 0
    blocked: str | None = None


@dataclass(frozen=True, slots=True)
class Diff:
    """A unified diff, cut to what a person reads; `note` says what was cut, or why there is none."""

    lines: tuple[str, ...] = ()
    note: str | None = None


def name_refusal(path: str) -> str | None:
    """Return why a file of this name is never written into a user's folder, or None."""
    try:
        octets = len(path.encode("utf-8"))
    except UnicodeEncodeError:
        return "its name is not text"
    steps = path.split("/")
    if path.startswith("/") or any(step in ("", ".", "..") for step in steps):
        return "its name leaves the folder"
    if octets > PATH_BYTES_MAX or any(len(step.encode("utf-8")) > STEP_BYTES_MAX for step in steps):
        return "its name is too long"
    if any(_is_hidden_character(char) for char in path):
        return "its name holds characters that do not show"
    if any(step.startswith(".") for step in steps):
        # .git/config, .bashrc, .envrc: what reads them runs what they say.
        return "its name begins with a dot"
    if "\\" in path or any(step != step.strip() for step in steps):
        return "its name is not what it seems"
    return None


def _is_hidden_character(char: str) -> bool:
    # C: controls, formats (direction, zero width, tags), surrogates, private and unassigned; Zl, Zp: line ends.
    kind = unicodedata.category(char)
    return kind.startswith("C") or kind in ("Zl", "Zp") or (kind == "Zs" and char != " ")


def sameness(step: str) -> str:
    """Return what two names have in common that some file system takes for one: case and composition set aside."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", step).casefold())


def colliding(paths: Iterable[str]) -> frozenset[str]:
    """Return the paths that cannot all be written: alike but for case or composition, or a file where a folder is."""
    spellings: dict[str, set[str]] = {}
    folders: set[str] = set()
    prefixes_of = {path: _prefixes(path) for path in paths}
    for prefixes in prefixes_of.values():
        folders.update(prefixes[:-1])
        for prefix in prefixes:
            spellings.setdefault(sameness(prefix), set()).add(prefix)
    return frozenset(
        path
        for path, prefixes in prefixes_of.items()
        if any(len(spellings[sameness(prefix)]) > 1 for prefix in prefixes)
        or path in folders
        or not prefixes_of.keys().isdisjoint(prefixes[:-1])
    )


def _prefixes(path: str) -> Sequence[str]:
    steps = path.split("/")
    return ["/".join(steps[: count + 1]) for count in range(len(steps))]


def judge(sha256: str, found: Found, *, began_us: int) -> Verdict:
    """Say what writing a file of this digest over what was found would do.

    began_us  when the job may first have read the folder: what changed later it has not seen
    """
    if found.blocked is not None:
        return Verdict(Change.CONFLICT, found.blocked)
    if found.sha256 is None:
        return Verdict(Change.NEW)
    if found.sha256 == sha256:
        return Verdict(Change.UNCHANGED)
    if found.changed_us >= began_us - _LAG_US:
        return Verdict(Change.CONFLICT, "yours changed after the job began")
    return Verdict(Change.CHANGED)


def text_of(content: bytes) -> str | None:
    """Return content as text, or None when it is not text."""
    if b"\0" in content:
        return None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def diff(before: bytes, after: bytes, path: str) -> Diff:
    """Return the unified diff of two contents, cut to a length that a person reads."""
    if max(len(before), len(after)) > DIFF_BYTES_MAX:
        return Diff(note="too large for a diff")
    old, new = text_of(before), text_of(after)
    if old is None or new is None:
        return Diff(note="not text")
    return _diff(_lines(old), _lines(new), path)


def _lines(text: str) -> list[str]:
    # At line feeds alone: other line ends are content, and are shown as what they are.
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    elif lines:
        lines[-1] += _NO_NEWLINE
    return lines


def _diff(old: list[str], new: list[str], path: str) -> Diff:
    head, old_middle, new_middle = _trim(old, new)
    if max(len(old_middle), len(new_middle)) > DIFF_LINES_MAX:
        return Diff(note=f"{len(old_middle)} lines become {len(new_middle)}: too many for a diff")
    made = list(difflib.unified_diff(old_middle, new_middle, f"yours/{path}", f"job/{path}", lineterm="", n=_AROUND))
    moved = [_moved(line, head) if line.startswith("@@") else line for line in made]
    lines = [part for line in moved for part in line.split("\n")]
    shown = tuple(_cut(line) for line in lines[:SHOWN_LINES_MAX])
    more = len(lines) - len(shown)
    return Diff(shown, f"{more} more lines" if more else None)


def _trim(old: list[str], new: list[str]) -> tuple[int, list[str], list[str]]:
    """Leave out what both begin and end with, but for a few lines around."""
    same = 0
    while same < min(len(old), len(new)) and old[same] == new[same]:
        same += 1
    tail = 0
    while tail < min(len(old), len(new)) - same and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    head, keep = max(0, same - _AROUND), max(0, tail - _AROUND)
    return head, old[head : len(old) - keep], new[head : len(new) - keep]


def _moved(line: str, head: int) -> str:
    """Correct the line numbers of a hunk for the lines that were left out before it."""
    _, before, after, *_ = line.split(" ")

    def shift(part: str) -> str:
        start, comma, count = part[1:].partition(",")
        return f"{part[0]}{int(start) + head}{comma}{count}"

    return f"@@ {shift(before)} {shift(after)} @@"


def _cut(line: str) -> str:
    return line if len(line) <= SHOWN_CHARS_MAX else f"{line[:SHOWN_CHARS_MAX]} … {len(line) - SHOWN_CHARS_MAX} more"
