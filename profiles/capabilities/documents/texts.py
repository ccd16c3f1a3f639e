"""A document as plain text: paragraphs in order, each with the heading above it and, of a PDF, its page."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from documents import pandoc
from documents.faults import Failed
from documents.formats import MIB

PARAGRAPHS_MAX = 500_000
# Markdown and plain text beyond this are read as lines: a full parse would need more memory than there is.
_PARSED_BYTES_MAX = 8 * MIB
_META_CHARS_MAX = 1_000
_TABLES_MAX = 500
_CELLS_MAX = 50_000
_DEPTH_MAX = 100
TOO_LONG_TO_PARSE = "It is so long that it was read as lines of text, without its markup."

Told = Callable[[float, str], None]


class Paragraph(NamedTuple):
    """A paragraph; `level` is 1 to 6 for a heading, 0 for text. `heading` is the one above it."""

    text: str
    level: int
    heading: str | None
    page: int | None


class Text(NamedTuple):
    """What a document says. `tables` is empty for a PDF, whose tables are looked for apart."""

    paragraphs: list[Paragraph]
    metadata: dict[str, str]
    tables: list[dict[str, Any]]
    notes: list[str]

    @property
    def title(self) -> str | None:
        """Return its title: as it says itself, or its first heading."""
        heading = next((each.text for each in self.paragraphs if each.level), None)
        return self.metadata.get("title") or heading

    def whole(self) -> str:
        """Return the whole text; places count its characters."""
        return "\n\n".join(each.text for each in self.paragraphs)


def read(path: Path, reader: str, *, folder: Path, heap_bytes: int, told: Told, media: str | None = None) -> Text:
    """Read a document. Raises Failed."""
    if reader == "pdf":
        return _of_pdf(path, told)
    lines_only = reader == "plain" or (reader in ("markdown", "gfm", "commonmark") and path.stat().st_size > _PARSED_BYTES_MAX)
    if lines_only:
        return _of_lines(path, told, [] if reader == "plain" else [TOO_LONG_TO_PARSE])
    return of_tree(pandoc.read(path, reader, folder=folder, heap_bytes=heap_bytes, media=media))


def of_tree(tree: dict[str, Any]) -> Text:
    """Return the text of pandoc's tree."""
    metadata = {name: pandoc.words(value)[:_META_CHARS_MAX] for name, value in list(tree["meta"].items())[:40]}
    found: list[Paragraph] = []
    tables: list[dict[str, Any]] = []
    heading: str | None = None
    for level, text, table in _blocks(tree["blocks"], 0):
        if table is not None:
            if len(tables) < _TABLES_MAX:
                tables.append({"heading": heading, "rows": table})
            continue
        if not text:
            continue
        found.append(Paragraph(text, level, heading, None))
        heading = text[:_META_CHARS_MAX] if level else heading
    return Text(found, {name: text for name, text in metadata.items() if text}, tables, [])


_Block = tuple[int, str, list[list[str]] | None]


def _blocks(blocks: list[Any], depth: int) -> Iterator[_Block]:
    if depth > _DEPTH_MAX:
        raise Failed("too_large", "it is nested too deeply")
    for block in blocks:
        kind, content = block["t"], block.get("c")
        if kind == "Header":
            yield content[0], pandoc.words(content[2]), None
        elif kind in ("Para", "Plain", "LineBlock", "CodeBlock"):
            yield 0, pandoc.words([block]), None
        elif kind == "Table":
            yield 0, "", _table(content)
        else:
            for inner in _inner(kind, content):
                yield from _blocks(inner, depth + 1)


def _inner(kind: str, content: Any) -> Iterator[list[Any]]:
    """Yield the lists of blocks that lie in a block."""
    if kind == "BlockQuote":
        yield content
    elif kind in ("Div", "Figure"):
        yield content[-1]
    elif kind in ("BulletList", "OrderedList"):
        yield from content if kind == "BulletList" else content[1]
    elif kind == "DefinitionList":
        for term, meanings in content:
            yield [{"t": "Para", "c": term}]
            yield from meanings


def _table(content: list[Any]) -> list[list[str]]:
    _, _, _, head, bodies, foot = content
    rows = [*head[1], *(row for body in bodies for part in body[2:4] for row in part), *foot[1]]
    table: list[list[str]] = []
    cells = 0
    for _, row in rows:
        cells += len(row)
        if cells > _CELLS_MAX:
            break
        table.append([pandoc.words(cell[4]) for cell in row])
    return table


def _of_pdf(path: Path, told: Told) -> Text:
    from documents import pdf

    found: list[Paragraph] = []
    with pdf.opened(path) as document:
        for number, page in enumerate(pdf.pages(document, told), start=1):
            found += (Paragraph(text, 0, None, number) for text in page)
        metadata = pdf.metadata(document)
    if not found:
        raise Failed("no_text", "its pages hold pictures and no text")
    return Text(found, metadata, [], [pdf.LOSSY])


def _of_lines(path: Path, told: Told, notes: list[str]) -> Text:
    size_bytes = max(1, path.stat().st_size)
    found: list[Paragraph] = []
    lines: list[str] = []
    seen_bytes = 0
    heading: str | None = None

    def finish() -> None:
        nonlocal heading
        text = " ".join(" ".join(lines).split())
        lines.clear()
        if not text:
            return
        level = len(text) - len(text.lstrip("#")) if notes and text.startswith("#") else 0
        text = text.lstrip("#").strip() if level else text
        found.append(Paragraph(text, min(level, 6), heading, None))
        heading = text if level else heading

    with path.open("rb") as source:
        for line in source:
            seen_bytes += len(line)
            if line.strip():
                lines.append(line.decode("utf-8", "replace"))
            else:
                finish()
                if len(found) % 2000 == 0:
                    told(seen_bytes / size_bytes, f"{seen_bytes // MIB} MiB read")
            if len(found) > PARAGRAPHS_MAX:
                raise Failed("too_large", f"it has more than {PARAGRAPHS_MAX} paragraphs")
    finish()
    return Text(found, {}, [], notes)
