#!/usr/bin/env python3
"""Make a folder of documents to try Crank on: 44 good ones in six formats, and three broken on purpose.

    python examples/make_documents.py examples/documents

The same files come out every time. Only the standard library is used.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from corpus.blocks import Document
from corpus.formats import write_csv, write_docx, write_epub, write_html, write_markdown, write_odt
from corpus.prose import write_measurements, write_prose
from corpus.subjects import SUBJECTS

WRITERS: Mapping[str, Callable[[Document], bytes]] = {
    "docx": write_docx,
    "odt": write_odt,
    "epub": write_epub,
    "html": write_html,
    "md": write_markdown,
}
FOLDERS = {"report": "", "guide": "guides/", "minutes": "archive/meetings/"}

# Names as people give them: spaces, accents, other scripts.
OWN_NAMES = {
    "river-report": "Jahresbericht Flußverein",
    "library-guide": "Guia da sala de leitura",
    "seeds-minutes": "Zápisnica – semenári",
    "kitchen-report": "Årsrapport køkken",
    "garden-guide": "鎌倉 苔庭 手引き",
    "lighthouse-minutes": "Procès-verbal (île aux phoques)",
}


def good_documents() -> dict[str, bytes]:
    """Return path to content of every document that converts."""
    formats = tuple(WRITERS)
    made = {}
    for position, subject in enumerate(SUBJECTS):
        for shift, (kind, folder) in enumerate(FOLDERS.items()):
            form = formats[(position + 2 * shift) % len(formats)]
            slug = f"{subject.slug}-{kind}"
            made[f"{folder}{OWN_NAMES.get(slug, slug)}.{form}"] = WRITERS[form](write_prose(subject, kind))
        made[f"data/{subject.slug}-measurements.csv"] = write_csv(write_measurements(subject))
    return made


def broken_documents() -> dict[str, bytes]:
    """Return path to content of three documents that no converter can read."""
    whole = write_docx(write_prose(SUBJECTS[3], "report"))
    return {
        "broken-truncated.docx": whole[: len(whole) // 2],
        "archive/broken-not-a-zip.odt": b"Scanned on 4 March. The scanner stopped before it wrote anything else.\n"
        * 40,
        "guides/broken-no-container.epub": _without(
            write_epub(write_prose(SUBJECTS[4], "guide")), b"META-INF/container.xml"
        ),
    }


def main(arguments: list[str]) -> int:
    """Write everything below the folder named on the command line."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: make_documents.py FOLDER", file=sys.stderr)
        return 2
    target = Path(arguments[0])
    documents = {**good_documents(), **broken_documents()}
    for path, content in documents.items():
        place = target / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    size_kib = sum(len(content) for content in documents.values()) / 1024
    print(f"{len(documents)} documents, {size_kib:.0f} KiB, in {target}")
    return 0


def _without(archive: bytes, name: bytes) -> bytes:
    """Rename one entry of a zip to nonsense of the same length, which leaves a zip that lacks it."""
    return archive.replace(name, b"X" * len(name))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
