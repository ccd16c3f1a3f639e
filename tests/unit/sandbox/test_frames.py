"""Frames survive any cut of the stream, and nothing else does."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.errors import ProtocolError
from crank.sandbox.frames import Frame, FrameReader, encode

_KINDS = {"a": 64, "b": 8}
_frames = st.lists(
    st.one_of(
        st.builds(Frame, st.just("a"), st.binary(max_size=64)), st.builds(Frame, st.just("b"), st.binary(max_size=8))
    )
)


@given(_frames, st.lists(st.integers(1, 40)), st.binary(max_size=16))
def test_frames_survive_every_cut(frames: list[Frame], cuts: list[int], prefix: bytes) -> None:
    """However the bytes arrive, the same frames come out, and nothing is left over."""
    stream = b"".join(prefix + encode(frame.kind, frame.payload) for frame in frames)
    reader = FrameReader(_KINDS, prefix=prefix)
    found: list[Frame] = []
    for cut in [*cuts, len(stream)]:
        found += reader.feed(stream[:cut])
        stream = stream[cut:]
    assert found == frames
    assert not reader.pending


@given(st.binary(min_size=1, max_size=200))
def test_garbage_never_becomes_a_frame(garbage: bytes) -> None:
    """Bytes without the agreed prefix are refused at the first that differs, or wait for the rest of it."""
    reader = FrameReader(_KINDS, prefix=b"\x00" * 16 + b"secret")
    try:
        assert reader.feed(garbage) == []
    except ProtocolError as fault:
        assert fault.error_code == "frame_prefix"


def test_a_huge_length_is_refused_before_it_is_read() -> None:
    """A claim of two gigabytes is a fault at once, not a buffer."""
    with pytest.raises(ProtocolError) as fault:
        FrameReader(_KINDS).feed(struct.pack("!BI", ord("a"), 2**31))
    assert fault.value.error_code == "frame_length"


def test_an_unknown_kind_is_refused() -> None:
    """Kinds are a closed list."""
    with pytest.raises(ProtocolError) as fault:
        FrameReader(_KINDS).feed(encode("z", b""))
    assert fault.value.error_code == "frame_kind"


def test_half_a_frame_is_pending() -> None:
    """A reader knows that a frame was begun and not finished."""
    reader = FrameReader(_KINDS)
    assert reader.feed(encode("a", b"xyz")[:-1]) == []
    assert reader.pending
