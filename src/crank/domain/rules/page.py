"""One page of a file, as text when it is text: what a caller who cannot take bytes is given."""

import base64
from dataclasses import dataclass

from crank.domain.json import JsonObject
from crank.domain.quantity import KIB

# A page travels inside a JSON text inside a JSON text, where a character may take twelve bytes; clients of MCP
# give up on an event of one MiB.
PAGE_BYTES_MAX = 64 * KIB
_CONTROL = bytes(set(range(32)) - {9, 10, 12, 13}) + b"\x7f"


@dataclass(frozen=True, slots=True)
class Page:
    """Bytes from a position on, in the form that they are shown in.

    taken_bytes  how many of the bytes that were read it shows: text never ends inside a character
    """

    text: str | None
    base64: str | None
    taken_bytes: int


def page(octets: bytes) -> Page:
    """Return bytes as text when they are UTF-8 without control characters, else as base64."""
    if octets.translate(None, _CONTROL) != octets:
        return _binary(octets)
    for missing in range(min(4, len(octets) + 1)):
        # The last character may go on behind the page.
        whole = octets[: len(octets) - missing]
        try:
            return Page(whole.decode("utf-8"), None, len(whole)) if whole or not octets else _binary(octets)
        except UnicodeDecodeError:
            continue
    return _binary(octets)


def _binary(octets: bytes) -> Page:
    return Page(None, base64.b64encode(octets).decode("ascii"), len(octets))


def page_document(octets: bytes, *, offset_bytes: int, size_bytes: int) -> JsonObject:
    """Return a page and where the next one begins; None there when the file is over."""
    shown = page(octets)
    end_bytes = offset_bytes + shown.taken_bytes
    return {
        "offset_bytes": offset_bytes,
        "size_bytes": size_bytes,
        "text": shown.text,
        "base64": shown.base64,
        "next_offset_bytes": end_bytes if end_bytes < size_bytes and shown.taken_bytes else None,
    }
