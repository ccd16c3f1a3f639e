"""What is in one document: text, headings, tables, pictures, and what it says of itself."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from documents import formats, texts
from documents.convert import Room
from documents.faults import plain

PARTS = ("text", "tables", "images", "metadata")
# What of it an answer carries by itself; all of it is in files.
TEXT_CHARS_MAX = 200_000
_HEADINGS_MAX = 500
_ROWS_SHOWN_MAX = 50
_TABLES_SHOWN_MAX = 20
_PICTURES_MAX = 500

Told = Callable[[float, str], None]


def extract(path: Path, reader: str, parts: Sequence[str], room: Room, told: Told) -> dict[str, Any]:
    """Write text.txt, tables.json and pictures to `room.folder`/out; return what is in the document. Raises Failed."""
    formats.check(path, reader)
    made = room.folder / "out"
    made.mkdir()
    media = room.media if "images" in parts else None
    text = texts.read(path, reader, folder=room.folder, heap_bytes=room.heap_bytes, told=told, media=media)
    found: dict[str, Any] = {"format": reader, "title": text.title, "notes": text.notes}
    if "metadata" in parts:
        found["metadata"] = text.metadata
    if "text" in parts:
        found |= _text(text, made)
    if "tables" in parts:
        found |= _tables(text, path, reader, made, told)
    if "images" in parts:
        found["images"] = _pictures(path, reader, room, made)
    return found


def _text(text: texts.Text, made: Path) -> dict[str, Any]:
    whole = text.whole()
    (made / "text.txt").write_text(whole, "utf-8")
    headings = [{"level": each.level, "text": each.text} for each in text.paragraphs if each.level]
    return {
        "text": whole[:TEXT_CHARS_MAX],
        "text_cut": len(whole) > TEXT_CHARS_MAX,
        "chars": len(whole),
        "words": len(whole.split()),
        "headings": headings[:_HEADINGS_MAX],
    }


def _tables(text: texts.Text, path: Path, reader: str, made: Path, told: Told) -> dict[str, Any]:
    tables = text.tables
    if reader == "pdf":
        from documents import pdf

        tables = pdf.tables(path, told)
    if tables:
        (made / "tables.json").write_text(json.dumps(tables, ensure_ascii=False, indent=1), "utf-8")
    shown = [
        {**table, "rows": table["rows"][:_ROWS_SHOWN_MAX], "rows_in_all": len(table["rows"])}
        for table in tables[:_TABLES_SHOWN_MAX]
    ]
    return {"tables": shown, "tables_in_all": len(tables)}


def _pictures(path: Path, reader: str, room: Room, made: Path) -> list[dict[str, Any]]:
    target = made / "images"
    target.mkdir()
    if reader == "pdf":
        from documents import pdf

        with pdf.opened(path) as document:
            found = pdf.pictures(document, target)
    else:
        found = []
        media = room.folder / room.media
        for each in sorted(media.rglob("*")) if media.is_dir() else []:
            if each.is_file() and not each.is_symlink() and len(found) < _PICTURES_MAX:
                name = f"{len(found) + 1}-{plain(each.name)[-80:].replace('/', '-')}"
                each.rename(target / name)
                found.append({"name": name})
    if not found:
        target.rmdir()
    return [{**each, "bytes": (target / each["name"]).stat().st_size} for each in found]
