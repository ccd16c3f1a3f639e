"""What a zygote says first is read as a stranger's word: an author's module is imported in there."""

import os
import socket

import pytest

from crank.sandbox.nest import Nest, first_word


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b'{"ready": {"modules": 3}}', None),
        (b'{"failed": {"layer": "preimports", "cause": "import x"}}', "layer_preimports"),
        (b"not JSON", "layer_interpreter"),
        (b"[1]", "layer_interpreter"),
        (b"{}", "layer_interpreter"),
        (b'"failed"', "layer_interpreter"),
        (b'{"failed": 7}', "layer_interpreter"),
        (b'{"failed": {"layer": 1}}', "layer_interpreter"),
        (b"", "layer_interpreter"),
        (b"[" * 4_000, "layer_interpreter"),
    ],
)
def test_whatever_is_said_is_an_answer(said: bytes, code: str | None) -> None:
    """Ready, failed with a layer, or spoken by somebody else: none of it ends the launcher."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    life, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, life, other:
        theirs.send(said) if said else theirs.close()
        fault = first_word(Nest(-1, os.getpid(), life, ours))
    assert (fault.error_code if fault is not None else None) == code
