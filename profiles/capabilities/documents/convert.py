"""One document in another format."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from documents import formats, pandoc, texts
from documents.formats import MIB

# What carries its pictures inside; for all others they lie beside it in a folder.
_HOLDS_PICTURES = frozenset({"docx", "epub", "epub2", "epub3", "odt", "pptx", "pdf", "fb2", "rtf", "ipynb"})
_PAGES = frozenset({"html", "html4", "html5", "revealjs", "slidy", "s5", "slideous", "dzslides"})
# A text that is a part of another one has no head; one that stands alone does.
_STANDS_ALONE = _HOLDS_PICTURES | _PAGES | {
    "latex", "beamer", "context", "texinfo", "man", "ms", "typst", "docbook", "docbook4", "docbook5", "tei",
    "jats", "jats_archiving", "jats_articleauthoring", "jats_publishing", "opml", "rst", "opendocument", "icml",
}  # fmt: skip

Told = Callable[[float, str], None]


class Room(NamedTuple):
    """A folder for one document, what its folder of pictures is called, and how much memory pandoc may take for it."""

    folder: Path
    media: str
    heap_bytes: int


def convert(path: Path, reader: str, to: str, room: Room, told: Told) -> dict[str, Any]:
    """Write `room.folder`/out/made, and its pictures beside it; return what was made. Raises Failed."""
    formats.check(path, reader)
    made = room.folder / "out"
    made.mkdir()
    # pandoc tells some formats by their suffix, so it has one until it is ready.
    target = made / f"made.{formats.suffix_of(to)}"
    tree, notes = _tree(path, reader, room, told)
    told(0.6, f"writing {to}")
    if to == "pdf":
        from documents import pdf

        pdf.write(tree, target, folder=room.folder, heap_bytes=room.heap_bytes)
    else:
        _write(tree, to, target, room)
    pictures = _keep_pictures(room, made) if to not in _HOLDS_PICTURES | _PAGES else 0
    return {"bytes": target.stat().st_size, "pictures": pictures, "notes": notes, "title": texts.of_tree(tree).title}


def _tree(path: Path, reader: str, room: Room, told: Told) -> tuple[dict[str, Any], list[str]]:
    told(0.0, f"reading {reader}")
    if reader not in ("pdf", "plain"):
        tree = pandoc.read(path, reader, folder=room.folder, heap_bytes=room.heap_bytes, media=room.media)
        return tree, []
    text = texts.read(
        path,
        reader,
        folder=room.folder,
        heap_bytes=room.heap_bytes,
        told=lambda part, words: told(0.6 * part, words),
    )
    return pandoc.plain_tree([each.text for each in text.paragraphs], text.metadata.get("title")), text.notes


def _write(tree: dict[str, Any], to: str, target: Path, room: Room) -> None:
    arguments = ["--from", "json", "--to", to, "--output", str(target)]
    arguments += ["--standalone"] if to in _STANDS_ALONE else []
    arguments += ["--embed-resources"] if to in _PAGES else []
    arguments += ["--wrap", "none"] if to not in _HOLDS_PICTURES else []
    if to in _PAGES | {"epub", "epub2", "epub3"} and "title" not in tree["meta"]:
        # These must have one, and pandoc would write a complaint.
        title = texts.of_tree(tree).title or "Document"
        arguments += [f"--metadata=pagetitle={title[:200]}"]
    pandoc.run(arguments, folder=room.folder, heap_bytes=room.heap_bytes, text=json.dumps(tree))


def _keep_pictures(room: Room, made: Path) -> int:
    media = room.folder / room.media
    found = [path for path in media.rglob("*") if path.is_file() and not path.is_symlink()] if media.is_dir() else []
    if found:
        media.rename(made / room.media)
    return len(found)


def heap_for(memory_bytes: int) -> int:
    """Return how much of a file's memory pandoc's heap may take; the rest is for copying it and for ourselves."""
    return max(64 * MIB, memory_bytes * 3 // 4)
