"""Names of results, and what a file is before a reader sees it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.domain.rules.request import parse_relative_path
from documents.faults import CODES, Failed, plain
from documents.formats import check, reader_of
from documents.names import Names, safe
from documents.places import Given, find, walk
from tests.support.paper import MIB, archive_of


@given(st.text(max_size=400))
def test_every_name_becomes_one_that_artifacts_may_have(name: str) -> None:
    """Whatever a file is called, its result has a name that the node takes."""
    parse_relative_path(safe(name) + ".md", field="path")


def test_two_documents_never_share_a_name() -> None:
    """Names that differ only in what is replaced, or in case, stay apart."""
    names = Names()
    given_names = ["a\n.md", "a\t.md", "A_.md", "a_.md", "b/../a_.md"]
    assert len({names.of(name).casefold() for name in given_names}) == len(given_names)


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.docx", b"", "unreadable"),
        ("a.docx", b"PK\x03\x04 and no more", "unreadable"),
        ("a.docx", archive_of({"mimetype": b"x"}), "unreadable"),
        ("a.docx", archive_of({"word/document.xml": b" " * (64 * MIB)}), "bomb"),
        ("a.docx", archive_of({"word/document.xml": b'<!DOCTYPE a [<!ENTITY b "c">]><a/>'}), "bomb"),
        ("a.docx", bytes.fromhex("d0cf11e0a1b11ae1") + b"x" * 600, "encrypted"),
        ("a.pdf", b"<html>", "unreadable"),
        ("a.md", b"a\0b", "unreadable"),
    ],
)
def test_what_cannot_be_right_is_refused_before_it_is_read(tmp_path: Path, name: str, content: bytes, code: str) -> None:
    """Each has the code that says why."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Failed) as caught:
        check(tmp_path / name, reader_of(tmp_path / name))
    assert caught.value.code == code
    assert code in CODES


def test_an_unknown_kind_is_named() -> None:
    """A file that nothing reads is told by its ending, made safe to show."""
    with pytest.raises(Failed, match="xyz"):
        reader_of(Path("a.xyz"))
    assert plain("a\x1b[31m\n" + "b" * 1000).startswith("a [31m b")
    assert len(plain("b" * 1000)) == 300


def test_only_what_was_given_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source is a given file or lies in a mount; dots and links do not lead out of it, and folders' links are not followed."""
    mounts, scratch = tmp_path / "in", tmp_path / "scratch"
    (mounts / "docs" / "sub").mkdir(parents=True)
    scratch.mkdir()
    (tmp_path / "secret.md").write_text("s")
    (mounts / "docs" / "sub" / "a.md").write_text("a")
    (mounts / "docs" / "link.md").symlink_to(tmp_path / "secret.md")
    (mounts / "docs" / "loop").symlink_to(mounts / "docs")
    monkeypatch.setattr("documents.places.MOUNTS", mounts)
    monkeypatch.setattr("documents.places.SCRATCH", scratch)
    job = Given(["x.md"], ["docs"])
    assert find(job, "docs/sub/a.md").path == mounts / "docs" / "sub" / "a.md"
    assert find(job, None).path == scratch / "x.md"
    for source in ("docs/../../secret.md", "docs/link.md", "other/a.md", "/etc/passwd", "docs", "docs/", "\0"):
        with pytest.raises(Failed) as caught:
            find(job, source)
        assert caught.value.code == "not_found"
    assert [each.name for each in walk(job, "docs")] == ["sub/a.md"]
    assert [each.name for each in walk(job, None)] == ["x.md", "docs/sub/a.md"]
