"""One operation on one document: what its process does, and what is taken from the folder that it leaves."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from documents import texts
from documents.bounds import MIB, Bounds
from documents.convert import Room, convert, heap_for
from documents.extract import PARTS, extract
from documents.faults import Failed, plain
from documents.formats import check, reader_of

SENTENCES = 3
TARGET = "gfm"
_FILES_MAX = 1_000
_TABLES_TOLD_MAX = 5

Told = Callable[[float, str], None]


def do(
    operation: str, path: Path, options: Mapping[str, Any], *, folder: Path, base: str, bounds: Bounds, told: Told
) -> dict[str, Any]:
    """Do one operation; files lie in `folder`/out then. Raises Failed."""
    folder.mkdir(parents=True)
    reader = reader_of(path, options.get("from"))
    room = Room(folder, f"{base}.media", heap_for(bounds.memory_bytes))
    if operation == "convert":
        return convert(path, reader, options.get("to", TARGET), room, told)
    if operation == "extract":
        return extract(path, reader, options.get("parts", PARTS), room, told)
    return _summarize(path, reader, options, room, told)


def _summarize(path: Path, reader: str, options: Mapping[str, Any], room: Room, told: Told) -> dict[str, Any]:
    from documents.summarize import summarize

    check(path, reader)
    text = texts.read(
        path, reader, folder=room.folder, heap_bytes=room.heap_bytes, told=lambda part, words: told(0.5 * part, words)
    )
    if not text.paragraphs and not text.tables:
        raise Failed("no_text", "there are no sentences in it")
    for table in text.tables[:_TABLES_TOLD_MAX] if not text.paragraphs else ():
        columns = ", ".join(table["rows"][0]) if table["rows"] else ""
        text.notes.append(plain(f"It holds no sentences, but a table of {len(table['rows'])} rows: {columns}"))
    return summarize(text, options.get("sentences", SENTENCES), lambda part, words: told(0.5 + 0.5 * part, words))


def left_in(folder: Path, base: str) -> list[tuple[str, Path]]:
    """Return the files that were made: what each adds to the document's name, and where it lies. Raises Failed."""
    found: list[tuple[str, Path]] = []
    root = folder / "out"
    for path in sorted(root.rglob("*")) if root.is_dir() else ():
        if path.is_symlink() or not path.is_file():
            continue
        first, *rest = path.relative_to(root).parts
        if not rest:
            addition = f".{first}" if not first.startswith("made.") else first.removeprefix("made")
        else:
            addition = "/".join([".media" if first == f"{base}.media" else f".{first}", *rest])
        found.append((addition, path))
        if len(found) > _FILES_MAX:
            raise Failed("too_large", f"it holds more than {_FILES_MAX} pictures")
    return found


def prepare(operation: str, paths: Iterable[Path], options: Mapping[str, Any]) -> None:
    """Load what the processes will need, once and before there are any."""
    if any(path.suffix.lower() == ".pdf" for path in paths):
        from documents import pdf

        if operation == "extract" and "tables" in options.get("parts", PARTS):
            import pdfplumber  # noqa: F401
    if operation == "convert" and options.get("to") == "pdf":
        import typst  # noqa: F401

        from documents import pdf  # noqa: F401
    if operation == "summarize":
        from documents import summarize  # noqa: F401


def bounds_for(limits: Mapping[str, float], *, at_once: int, sec: float) -> Bounds:
    """Share a job's memory out: half a gigabyte for results and ourselves, the rest for those at work."""
    memory_bytes = int(limits["memory_bytes"])
    share = (memory_bytes - min(512 * MIB, memory_bytes // 3)) // at_once
    # A reader and the pandoc that it starts may each need it, one after the other.
    return Bounds(sec, max(96 * MIB, int(share * 0.8)), int(limits["file_bytes"]))
