"""The code of the document capabilities in the real sandbox of python-docs: pictures, PDF, and documents that want more."""

import asyncio
import base64
import hashlib
import io
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from crank.adapters.profile_store import read_shipped
from crank.domain.ids import Digest
from crank.ports import SandboxSpec
from crank.sandbox.runner import NamespaceRunner
from tests.support.paper import MIB
from tests.support.profiles import REPO, project_store

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("profiles"), pytest.mark.U2]

PICTURE = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c489"
        "0000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
    )
).decode()
PAGE = f'<h1>Pier</h1><p>See <img alt="the pier" src="data:image/png;base64,{PICTURE}"> here.</p>'
GREEDY = """# Wanting

![](/etc/passwd) ![](http://example.com/a.png)

```{=typst}
#read("/etc/passwd")
```

`#read("../../../etc/passwd")`{=typst} but nothing else.
"""


class _Desk:
    """Runs shipped capabilities one after another, each in a fresh sandbox of one runner."""

    def __init__(self, builds: Path, loop: asyncio.Runner) -> None:
        self._build = project_store(builds).build("python-docs", "cpu", lambda _line: None)
        self._code = {each.name: each.code for each in read_shipped(REPO / "profiles")}
        self._loop = loop
        self.runner = NamespaceRunner(parked=0)
        self.progressed: list[str] = []

    def ask(
        self, capability: str, args: dict[str, Any], files: dict[str, bytes], **limits: int
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Return the answer and the files that were left; `limits` are what the code is told of its bounds."""
        self.progressed.clear()
        return self._loop.run(self._ask(capability, args, files, limits))

    def output(self, stream: str, text: str, offset_bytes: int, at_sec: float) -> None:
        """Drop it."""

    def progress(self, fraction: float | None, message: str) -> None:
        """Keep the words."""
        self.progressed.append(message)

    async def _ask(
        self, capability: str, args: dict[str, Any], files: dict[str, bytes], limits: dict[str, int]
    ) -> tuple[dict[str, Any], dict[str, bytes]]:
        order = {
            "capability": capability,
            "args": args,
            "files": [name for name in files if not name.startswith(".crank/")],
            "mounts": [],
            "limits": {**asdict(self._build.limits), **limits},
            "version": "1",
        }
        left: dict[Digest, bytes] = {}

        def store(source: BinaryIO) -> Digest:
            content = source.read()
            digest = Digest(hashlib.sha256(content).hexdigest())
            left[digest] = content
            return digest

        session = await self.runner.open(SandboxSpec(build=self._build, limits=self._build.limits))
        try:
            for name, content in files.items():
                await session.put_file(name, io.BytesIO(content))
            outcome = await session.run_python(self._code[capability], order, self)
            outcome = await asyncio.to_thread(session.collect, store, outcome)
        finally:
            await session.close()
        assert isinstance(outcome.result, dict), outcome.stderr.text
        return outcome.result, {each.path: left[each.sha256] for each in outcome.artifacts}


@pytest.fixture(scope="module")
def desk(builds: Path) -> Iterator[_Desk]:
    """Give a desk."""
    with asyncio.Runner() as loop:
        made = _Desk(builds, loop)
        loop.run(made.runner.start())
        try:
            yield made
        finally:
            loop.run(made.runner.stop())


def test_pictures_travel_and_are_kept(desk: _Desk) -> None:
    """A picture goes into a Word file, comes out beside Markdown, and is there again when nothing has changed."""
    _, made = desk.ask("document.convert", {"to": "docx"}, {"page.html": PAGE.encode()})
    files = {"page.docx": made["page.docx"]}
    first, left = desk.ask("folder.process", {"to": "gfm"}, files)
    assert first["result"]["done"] == 1
    (picture,) = [name for name in left if name.startswith("page.docx.media/")]
    assert left[picture] == base64.b64decode(PICTURE)
    assert picture in left["page.docx.md"].decode()
    files[".crank/kept.tar"] = left[".crank/kept.tar"]
    second, again = desk.ask("folder.process", {"to": "gfm"}, files)
    assert second["result"]["cached"] == 1
    assert {name: again[name] for name in (picture, "page.docx.md")} == {name: left[name] for name in (picture, "page.docx.md")}
    extracted, images = desk.ask("document.extract", {"parts": ["images"]}, {"page.docx": made["page.docx"]})
    assert len(extracted["result"]["images"]) == 1
    assert images[extracted["result"]["outputs"][0]] == base64.b64decode(PICTURE)


def test_a_document_that_names_other_files_gets_none(desk: _Desk) -> None:
    """Pictures elsewhere become their description, raw typst is dropped, and the PDF is made all the same."""
    answer, made = desk.ask("document.convert", {"to": "pdf"}, {"greedy.md": GREEDY.encode()})
    assert answer["reason"] == "exited", answer
    read, _ = desk.ask("document.extract", {"parts": ["text"]}, {"greedy.pdf": made["greedy.pdf"]})
    assert "but nothing else" in read["result"]["text"]
    assert "root:" not in read["result"]["text"]


def test_a_document_too_large_to_read_is_told_so(desk: _Desk) -> None:
    """Markdown that needs more memory than there is ends with a declared code, says what it did, and leaves nothing."""
    words = b"a b c d e f g h i j k l m n o p q r s t u v w x y z.\n" * 20_000
    answer, made = desk.ask("document.convert", {"to": "html"}, {"long.md": words}, memory_bytes=128 * MIB)
    assert (answer["reason"], answer["code"], made) == ("raised", "too_large", {}), answer
    assert desk.progressed[0] == "reading markdown"


def test_faults_of_one_document_are_told_by_their_code(desk: _Desk) -> None:
    """What is missing, unknown or broken ends the call with a declared code and leaves nothing."""
    for source, content, code in (("a.xyz", b"x", "unknown_format"), ("a.docx", b"x", "unreadable"), ("a.pdf", b"", "unreadable")):
        answer, made = desk.ask("document.convert", {}, {source: content})
        assert (answer["reason"], answer["code"], made) == ("raised", code, {}), answer
    answer, _ = desk.ask("document.convert", {"source": "b.md"}, {"a.md": b"x"})
    assert answer["code"] == "not_found"
