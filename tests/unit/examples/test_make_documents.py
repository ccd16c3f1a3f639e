"""The documents that the demo works on: the same each time, enough of them, well formed."""

import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def _make(folder: Path) -> dict[str, bytes]:
    subprocess.run([sys.executable, str(EXAMPLES / "make_documents.py"), str(folder)], check=True, capture_output=True)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the documents once for all tests of this module."""
    folder = tmp_path_factory.mktemp("documents")
    _make(folder)
    return folder


def test_the_same_documents_come_out_every_time(tmp_path: Path) -> None:
    """Two runs give the same names and the same bytes."""
    first = _make(tmp_path / "a")
    assert first == _make(tmp_path / "b")


def test_there_are_enough_of_every_format(made: Path) -> None:
    """At least 44 good documents, at least five of each of six formats, and three broken ones."""
    files = [path for path in made.rglob("*") if path.is_file()]
    broken = [path for path in files if path.name.startswith("broken-")]
    good = Counter(path.suffix for path in files if path not in broken)
    assert sum(good.values()) >= 44
    assert set(good) == {".docx", ".odt", ".epub", ".html", ".md", ".csv"}
    assert min(good.values()) >= 5
    assert len(broken) == 3


def test_names_are_as_people_give_them(made: Path) -> None:
    """There are folders in folders, spaces, accents and another script."""
    names = [path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()]
    assert any(name.count("/") == 2 for name in names)
    assert any(" " in name for name in names)
    assert any("鎌倉" in name for name in names)
    assert any("ß" in name for name in names)


def test_documents_are_of_real_size(made: Path) -> None:
    """A Markdown document has thousands of words, headings, a list, a table, links and footnotes."""
    for path in made.rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        assert len(text.split()) > 3_000
        for mark in ("\n# ", "\n## ", "\n- ", "| --- |", "](https://", "[^1]: "):
            assert mark in text, (path.name, mark)


@pytest.mark.parametrize("suffix", [".docx", ".odt", ".epub"])
def test_archives_hold_well_formed_xml(made: Path, suffix: str) -> None:
    """Every part of every good archive parses as XML."""
    for path in made.rglob(f"*{suffix}"):
        if path.name.startswith("broken-"):
            continue
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name != "mimetype":
                    ET.fromstring(archive.read(name))


def test_it_says_how_it_is_used() -> None:
    """Without a folder it ends with 2 and says what it wants."""
    answer = subprocess.run(
        [sys.executable, str(EXAMPLES / "make_documents.py")], check=False, capture_output=True, text=True
    )
    assert answer.returncode == 2
    assert "usage" in answer.stderr
