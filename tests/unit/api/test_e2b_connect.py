"""Connect's frames, in and out."""

import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.api.e2b import connect
from crank.domain.json import loads_strict
from crank.errors import CrankError, InvalidRequest, NotSupported, TooLarge
from tests.unit.api.test_e2b_upload import request


def test_frames_go_both_ways() -> None:
    """What was framed is read again; the last frame of a stream carries no message."""
    raw = connect.frame({"a": "ü"}) + connect.frame({"b": 1}) + connect.frame({}, last=True)
    assert connect.parse_frames(raw) == [{"a": "ü"}, {"b": 1}]
    assert raw[:5] == b"\0\0\0\0\x0a"


def test_broken_frames_are_refused() -> None:
    """A head or a body that is cut off, compression, and what is no object."""
    whole = connect.frame({"a": 1})
    for raw in (whole[:3], whole[:-1], b"\0\0\0\0\2[]"):
        with pytest.raises(InvalidRequest):
            connect.parse_frames(raw)
    with pytest.raises(NotSupported):
        connect.parse_frames(b"\1" + whole[1:])


def test_frames_are_counted() -> None:
    """Too many frames are refused: two megabytes of the smallest ones would be 300 000 requests."""
    assert len(connect.parse_frames(connect.frame({}) * connect.FRAMES_MAX)) == connect.FRAMES_MAX
    with pytest.raises(TooLarge):
        connect.parse_frames(connect.frame({}) * (connect.FRAMES_MAX + 1))


async def test_large_bodies_are_read_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes long to read is read in a thread, as an object and as a frame."""
    threads: set[int] = set()

    def read(raw: bytes) -> Any:
        threads.add(threading.get_ident())
        return loads_strict(raw)

    monkeypatch.setattr(connect, "loads_strict", read)
    word = {"a": "x" * 100_000}
    assert await connect.read_object(request([json.dumps(word).encode()])) == word
    assert await connect.read_frames(request([connect.frame(word)])) == [word]
    assert threads
    assert threading.get_ident() not in threads


@given(st.binary(max_size=64))
def test_any_bytes_are_frames_or_a_refusal(raw: bytes) -> None:
    """Nothing but the errors of the tree comes out of a body."""
    try:
        connect.parse_frames(raw)
    except CrankError:
        return
