"""PDF in, with what is lost told, and PDF out by typst, with no LaTeX."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pypdfium2

from documents import pandoc
from documents.faults import Failed, plain

LOSSY = "PDF holds places of letters and no structure: paragraphs are guessed, and headings, lists and footnotes are lost."
PAGES_MAX = 5_000
TABLE_PAGES_MAX = 200
_TABLES_MAX = 500
_PICTURES_MAX = 200
_FIELDS = {"Title": "title", "Author": "author", "Subject": "subject", "Keywords": "keywords", "CreationDate": "date"}
# A line that ends so far before the right edge ends its paragraph.
_FULL_LINE = 0.7

Told = Callable[[float, str], None]


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a PDF. Raises Failed (`encrypted`, `unreadable`, `too_large`)."""
    try:
        document = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as fault:
        if "assword" in str(fault):
            raise Failed("encrypted", "it is encrypted with a password") from None
        raise Failed("unreadable", f"it is not a PDF, or damaged: {fault}") from None
    try:
        if len(document) == 0:
            raise Failed("unreadable", "it has no pages")
        if len(document) > PAGES_MAX:
            raise Failed("too_large", f"it has {len(document)} pages, {PAGES_MAX} are read at most")
        yield document
    finally:
        document.close()


def pages(document: Any, told: Told | None = None) -> Iterator[list[str]]:
    """Yield the paragraphs of each page, guessed from its lines."""
    for number in range(len(document)):
        try:
            page = document[number]
            text = page.get_textpage().get_text_bounded()
        except pypdfium2.PdfiumError as fault:
            raise Failed("unreadable", f"page {number + 1} is damaged: {fault}") from None
        yield paragraphs(text)
        page.close()
        if told is not None and number % 10 == 0:
            told((number + 1) / len(document), f"page {number + 1} of {len(document)}")


def paragraphs(text: str) -> list[str]:
    """Join the lines of a page to paragraphs: a short line, or an empty one, ends one."""
    lines = [line.rstrip() for line in text.replace("\r", "").replace("\x02", "\ufffe").split("\n")]
    longest = max((len(line) for line in lines), default=0)
    found: list[str] = []
    current = ""
    for line in lines:
        # What pdfium calls a hyphen at a line's end joins two halves of a word.
        current = current[:-1] + line if current.endswith("\ufffe") else f"{current} {line}"
        if not line.strip() or (len(line) < _FULL_LINE * longest and not line.endswith("\ufffe")):
            found.append(current)
            current = ""
    found.append(current)
    clean = (" ".join(each.replace("\ufffe", "").split()) for each in found)
    return [each for each in clean if each]


def metadata(document: Any) -> dict[str, str]:
    """Return what the file says of itself."""
    told = document.get_metadata_dict(skip_empty=True)
    return {name: plain(told[key]) for key, name in _FIELDS.items() if told.get(key)}


def tables(path: Path, told: Told) -> list[dict[str, Any]]:
    """Return the tables that lines in a PDF make, page by page."""
    import pdfplumber

    found: list[dict[str, Any]] = []
    with pdfplumber.open(path) as document:
        for number, page in enumerate(document.pages[:TABLE_PAGES_MAX], start=1):
            told(number / len(document.pages), f"tables of page {number}")
            found += [
                {"page": number, "rows": [[plain(cell or "") for cell in row] for row in rows]}
                for rows in page.extract_tables()
            ]
            page.close()
            if len(found) >= _TABLES_MAX:
                break
    return found


def pictures(document: Any, folder: Path) -> list[dict[str, Any]]:
    """Save the pictures of a PDF as PNG; return what each is."""
    found: list[dict[str, Any]] = []
    for number in range(len(document)):
        for item in document[number].get_objects(filter=[pypdfium2.raw.FPDF_PAGEOBJ_IMAGE], max_depth=4):
            if len(found) >= _PICTURES_MAX:
                return found
            name = f"page-{number + 1}-{len(found) + 1}.png"
            try:
                picture = item.get_bitmap().to_pil()
                picture.save(folder / name)
            except (pypdfium2.PdfiumError, ValueError):
                continue
            found.append({"name": name, "page": number + 1, "width": picture.width, "height": picture.height})
    return found


def write(tree: dict[str, Any], target: Path, *, folder: Path, heap_bytes: int) -> None:
    """Set a document as PDF. Pictures that are not in `folder` become their description. Raises Failed."""
    import json

    import typst

    def present(node: dict[str, Any]) -> Any:
        if node["t"] == "Image" and not _lies_in(folder, node["c"][2][0]):
            described = node["c"][1] or [{"t": "Str", "c": "picture"}]
            return {"t": "Emph", "c": described}
        # Raw typst could name files and run for ever; a document needs none of it.
        if node["t"] in ("RawInline", "RawBlock") and node["c"][0] == "typst":
            return {"t": "Str", "c": ""} if node["t"] == "RawInline" else {"t": "Div", "c": [["", [], []], []]}
        return node

    ready = pandoc.change(tree, present)
    arguments = ["--from", "json", "--to", "typst", "--standalone"]
    source = pandoc.run(arguments, folder=folder, heap_bytes=heap_bytes, text=json.dumps(ready))
    (folder / "main.typ").write_text(source, "utf-8")
    try:
        target.write_bytes(typst.compile(str(folder / "main.typ"), root=str(folder), ignore_system_fonts=True))
    except typst.TypstError as fault:
        raise Failed("unreadable", f"it cannot be set as PDF: {fault}") from None


def _lies_in(folder: Path, name: str) -> bool:
    if re.match(r"[a-z]+:", name):
        return False
    try:
        return (folder / name).resolve().is_relative_to(folder.resolve()) and (folder / name).is_file()
    except (OSError, ValueError):
        return False
