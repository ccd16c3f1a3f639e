"""Pages of files: text where it is text, whole characters, and every byte once."""

import base64
import json

from hypothesis import given
from hypothesis import strategies as st

from crank.domain.rules.page import PAGE_BYTES_MAX, page, page_document

EVENT_BYTES_MAX = 1024 * 1024


def walk(octets: bytes, length: int) -> tuple[bytes, int]:
    """Read a file page by page; return what was read, and in how many pages."""
    whole, offset, pages = b"", 0, 0
    while offset is not None:
        shown = page_document(octets[offset : offset + length], offset_bytes=offset, size_bytes=len(octets))
        text = shown["text"]
        whole += text.encode() if text is not None else base64.b64decode(shown["base64"])
        offset, pages = shown["next_offset_bytes"], pages + 1
    return whole, pages


@given(st.binary(max_size=400) | st.text(max_size=200).map(lambda text: text.encode("utf-8")), st.integers(1, 50))
def test_pages_give_every_byte_once(octets, length):
    """Whatever a file holds and however small the pages are, walking them gives the file."""
    whole, pages = walk(octets, length)
    assert whole == octets
    assert pages <= len(octets) + 1


def test_text_stays_text_across_pages():
    """A character that a page would cut goes to the next page whole."""
    octets = ("größe €𝄞" * 100).encode()
    for length in range(4, 12):
        offset = 0
        while offset < len(octets):
            shown = page(octets[offset : offset + length])
            assert shown.text is not None
            offset += shown.taken_bytes


def test_what_is_not_text_is_base64():
    """Bytes with control characters or broken UTF-8 come as base64."""
    assert page(b"\x00abc").base64 is not None
    assert page(b"\xff\xfe\x00").base64 is not None
    assert page(b"tab\tand\r\nend").text == "tab\tand\r\nend"
    assert page(b"").text == ""


def test_no_page_is_too_large_for_a_client():
    """The worst page, told twice in one event as MCP wants it, stays below what clients of MCP read."""
    for octets in (b'"' * PAGE_BYTES_MAX, "é".encode() * (PAGE_BYTES_MAX // 2), b"\x00" * PAGE_BYTES_MAX, b"\x0c" * PAGE_BYTES_MAX):
        document = page_document(octets, offset_bytes=0, size_bytes=len(octets))
        event = json.dumps({"content": [{"text": json.dumps(document, ensure_ascii=False)}], "structured": document})
        assert len(event) < EVENT_BYTES_MAX
