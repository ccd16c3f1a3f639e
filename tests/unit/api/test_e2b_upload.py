"""Bodies of uploads: what is packed, what is too much, and that the loop does none of the work."""

import gzip
import io
import threading
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from crank.api.e2b import upload
from crank.controller.box_call import BoxRefused
from crank.errors import InvalidRequest, NotSupported, TooLarge

ONE, TWO = gzip.compress(b"one ", mtime=0), gzip.compress(b"two", mtime=0)
# A head, and then blocks of which each holds nothing and is not the last.
ENDLESS = gzip.compress(b"")[:10] + b"\0\0\0\xff\xff" * 250_000


class Watched(io.BytesIO):
    """A file that notes how much is written at once, and where."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[int] = []
        self.threads: set[int] = set()

    def write(self, octets: bytes) -> int:  # type: ignore[override]
        self.pieces.append(len(octets))
        self.threads.add(threading.get_ident())
        return super().write(octets)


def unpacked(raw: bytes, *, step: int = 1 << 16, bytes_max: int = 1 << 20) -> bytes:
    """Unpack a body that arrives in pieces of this size."""
    target = io.BytesIO()
    body = upload.Unzipped(target, bytes_max=bytes_max)
    for at in range(0, len(raw), step):
        body.feed(raw[at : at + step])
    body.finish()
    assert body.size_bytes == len(target.getvalue())
    return target.getvalue()


def request(pieces: Iterable[bytes], *, whole: bool = True, **headers: str) -> Request:
    """Make a request whose body arrives in these pieces, and then ends or breaks off."""
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages.append({"type": "http.request", "body": b"", "more_body": False} if whole else {"type": "http.disconnect"})

    async def receive() -> dict[str, object]:
        return messages.pop(0)

    named = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": named}, receive)


@given(st.lists(st.binary(max_size=3_000), min_size=1, max_size=5), st.integers(1, 400))
def test_every_member_is_stored(parts: list[bytes], step: int) -> None:
    """Any members after each other, cut anywhere on the way, unpack to all that they hold."""
    assert unpacked(b"".join(map(gzip.compress, parts)), step=step) == b"".join(parts)


def test_what_grows_beyond_a_piece_comes_out_whole() -> None:
    """A body that unpacks to many full pieces is complete, though its input was taken long before."""
    assert unpacked(gzip.compress(b"\0" * 1_000_000) + ONE) == b"\0" * 1_000_000 + b"one "


@pytest.mark.parametrize("behind", [b"x", b"\0", b"\0" * 512, b"garbage" * 9, TWO[:5], b"\x1f"])
@pytest.mark.parametrize("step", [1, 7, 1 << 16])
def test_garbage_behind_a_member_is_refused(behind: bytes, step: int) -> None:
    """Whatever follows a member is a whole member, or the body is refused."""
    with pytest.raises(InvalidRequest):
        unpacked(ONE + behind, step=step)


def test_a_body_that_is_cut_off_is_refused() -> None:
    """Every beginning of a body that does not end with a member is refused, the empty one too."""
    raw = ONE + TWO
    for size in range(len(raw)):
        if size != len(ONE):
            with pytest.raises(InvalidRequest):
                unpacked(raw[:size])
    with pytest.raises(InvalidRequest):
        unpacked(b"no gzip at all")


def test_what_no_sandbox_holds_is_refused_early() -> None:
    """A body that grows too large is refused at its bound, packed or plain, and comes out in small pieces until then."""
    bomb = gzip.compress(b"\0" * 8_000_000)
    for body, raw in ((upload.Unzipped, bomb), (upload.Unzipped, bomb + ONE), (upload.Plain, b"\0" * 2_000_000)):
        target = Watched()
        with pytest.raises(BoxRefused) as refused:
            body(target, bytes_max=1_000_000).feed(raw)
        assert refused.value.code == "resource_exhausted"
        assert sum(target.pieces) <= 1_000_000
        assert max(target.pieces, default=0) <= upload.PIECE_BYTES


@pytest.mark.parametrize("raw", [gzip.compress(b"") * (upload.MEMBERS_MAX + 1), ENDLESS])
def test_a_body_that_holds_nothing_is_bounded_too(raw: bytes) -> None:
    """Members, and blocks, that unpack to nothing are not taken without end."""
    with pytest.raises(TooLarge):
        unpacked(raw, bytes_max=1)


async def test_the_loop_only_passes_bodies_on() -> None:
    """Unpacking and writing happen in threads, in pieces of at most 256 KiB."""
    target = Watched()
    raw = gzip.compress(b"\0" * 3_000_000)
    size_bytes = await upload.receive(request([raw[:100], raw[100:]], content_encoding="gzip"), target)
    assert size_bytes == 3_000_000 == len(target.getvalue())
    assert threading.get_ident() not in target.threads
    assert max(target.pieces) <= 256 * 1024


async def test_lengths_and_encodings_are_believed_or_refused() -> None:
    """A length that no sandbox holds is refused before the body; one that is no number is not believed."""
    with pytest.raises(BoxRefused):
        await upload.receive(request([b"x"], content_length="999999999999"), io.BytesIO())
    for length in ("9" * 5_000, "-1", "٣"):
        assert await upload.receive(request([b"x"], content_length=length), io.BytesIO()) == 1
    with pytest.raises(NotSupported):
        await upload.receive(request([b"x"], content_encoding="br"), io.BytesIO())
    with pytest.raises(InvalidRequest):
        await upload.receive(request([b"x"], whole=False), io.BytesIO())
