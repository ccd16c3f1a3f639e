"""How the command line speaks: data on stdout, talk on stderr, JSON when asked, and nothing a job
printed may take over the terminal.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from crank.errors import CrankError

_TAB_NEWLINE = "\t\n"
# Controls of C0 and C1, and those that turn the direction of text (Trojan Source, CVE-2021-42574).
_DIRECTION = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def harmless(text: str) -> str:
    """Return text with every control character made visible, so that a terminal only shows it.

    A carriage return becomes a line feed: progress bars stay readable and no line is overwritten.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if text.isprintable():
        return text
    return "".join(char if char in _TAB_NEWLINE else _visible(char) for char in text)


def one_line(text: str) -> str:
    """Return a stranger's text as one line in which every character shows; nothing in it can move or hide."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\t" else _plain(char) for char in text)


def _plain(char: str) -> str:
    point = ord(char)
    return _visible(char) if point < 0x20 or point == 0x7F else f"\\u{point:04x}"


def _visible(char: str) -> str:
    point = ord(char)
    if point < 0x20 or point == 0x7F:
        return f"^{chr(point ^ 0x40)}"
    if 0x80 <= point < 0xA0 or char in _DIRECTION or 0xD800 <= point < 0xE000:
        return f"\\u{point:04x}"
    return char


def write(text: str, target: TextIO) -> None:
    """Write a job's text as it is to a file or pipe, harmless to a terminal."""
    if target.isatty():
        target.write(harmless(text))
    else:
        target.write(text.encode("utf-8", "replace").decode("utf-8"))
    target.flush()


def say(text: str) -> None:
    """Tell a person something; never data."""
    print(harmless(text), file=sys.stderr, flush=True)


def print_json(document: Any) -> None:
    """Print one JSON value: indented for a terminal, on one line for a program."""
    if sys.stdout.isatty():
        print(json.dumps(document, indent=2, ensure_ascii=True))
    else:
        print(json.dumps(document, ensure_ascii=True, separators=(",", ":")))
    sys.stdout.flush()


def print_rows(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table: columns wide enough, two spaces between, one row a line."""
    lines = [[str(title) for title in titles]]
    lines += [["-" if cell is None else harmless(str(cell)).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def error_document(fault: CrankError) -> Mapping[str, Any]:
    """Return the JSON form of a fault."""
    return {
        "error": {
            "code": fault.error_code,
            "message": fault.message,
            "field": fault.field,
            "fix": fault.fix,
            "problems": [{"field": each.field, "cause": each.cause, "fix": each.fix} for each in fault.problems],
        }
    }


def tell_fault(fault: CrankError, *, as_json: bool) -> None:
    """Tell what happened, why and what to do: JSON on stdout when asked, else sentences on stderr."""
    if as_json:
        print_json(error_document(fault))
        return
    say(f"error: {fault.message} [{fault.error_code}]")
    for problem in fault.problems:
        say(f"  - {problem.field}: {problem.cause} {problem.fix}")
    if fault.fix:
        say(f"  fix: {fault.fix}")


def size_text(size_bytes: int) -> str:
    """Return a size for people, in powers of 1024."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size_bytes} B"
