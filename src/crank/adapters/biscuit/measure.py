"""How much of a token there is to print, told by its bytes, before the library prints a word of it.

To read a block's form means to let the library print it, believed by nobody yet. It keeps a long text once and names it
by a number, and prints an expression by joining what it has so far, again and again: a token of a few thousand bytes
could hold the process for seconds.
"""

import base64
import binascii
from collections.abc import Iterator
from typing import Final

from crank.adapters.biscuit.keys import BadTokenError

# Of one block. The longest that this node writes: names of holders, of which a SPIFFE ID has 2048 letters at most.
TEXTS_BYTES_MAX: Final = 2_560
# All that a block asks for: who presents it, and until when.
CHECKS_BYTES_MAX: Final = 512
# Numbers of fields: a token's blocks, a signed block's content, and in there texts, rules and checks.
_BLOCKS, _CONTENT, _TEXTS, _PROGRAM = frozenset({2, 3}), 1, 1, frozenset({5, 6})
_NUMBER, _LONG, _BYTES, _SHORT = 0, 1, 2, 5
_VARINT_BYTES_MAX = 10


def check_printable(token: str) -> None:
    """Let a token pass whose blocks can be printed at once. Raises BadTokenError."""
    bare = token.rstrip("=")
    try:
        raw = base64.b64decode(bare + "=" * (-len(bare) % 4), b"-_", validate=True)
    except binascii.Error as fault:
        raise BadTokenError("it is not base64url") from fault
    for block in _contents(raw, _BLOCKS):
        for content in _contents(block, frozenset({_CONTENT})):
            texts, program = 0, 0
            for number, part in _fields(content):
                texts += len(part) if number == _TEXTS else 0
                program += len(part) if number in _PROGRAM else 0
            if texts > TEXTS_BYTES_MAX or program > CHECKS_BYTES_MAX:
                raise BadTokenError("a block says more than any of a known form")


def _contents(raw: bytes, numbers: frozenset[int]) -> Iterator[bytes]:
    return (part for number, part in _fields(raw) if number in numbers)


def _fields(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the number and the bytes of each field of a message (Protocol Buffers), in order; of a number, none."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        kind, size = tag & 7, {_LONG: 8, _SHORT: 4}.get(tag & 7, 0)
        if kind in (_NUMBER, _BYTES):
            size, at = _varint(raw, at)
        elif not size:
            raise BadTokenError("its bytes are no message")
        end = at + (0 if kind == _NUMBER else size)
        if end > len(raw):
            raise BadTokenError("its bytes end too soon")
        yield tag >> 3, raw[at:end] if kind == _BYTES else b""
        at = end


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for place, byte in enumerate(raw[at : at + _VARINT_BYTES_MAX]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise BadTokenError("its bytes end too soon")
