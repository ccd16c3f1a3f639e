"""What a file is: by its name, and by its first bytes, before any reader is let near it."""

import zipfile
from pathlib import Path

from documents.faults import Failed, plain

MIB = 1 << 20
# Suffix to the name of the reader. `pdf` and `plain` are read here, everything else by pandoc.
READERS = {
    ".adoc": "asciidoc", ".asciidoc": "asciidoc", ".bib": "bibtex", ".csv": "csv", ".dj": "djot", ".docx": "docx",
    ".epub": "epub", ".fb2": "fb2", ".htm": "html", ".html": "html", ".ipynb": "ipynb", ".latex": "latex",
    ".markdown": "markdown", ".md": "markdown", ".odt": "odt", ".opml": "opml", ".org": "org", ".pdf": "pdf",
    ".pptx": "pptx", ".ris": "ris", ".rst": "rst", ".rtf": "rtf", ".tex": "latex", ".textile": "textile",
    ".tsv": "tsv", ".txt": "plain", ".text": "plain", ".typ": "typst", ".wiki": "mediawiki", ".xhtml": "html",
    ".xlsx": "xlsx",
}  # fmt: skip
# Of formats whose file ends in something else than the format's name.
SUFFIXES = {
    "asciidoc": "adoc", "asciidoctor": "adoc", "beamer": "tex", "commonmark": "md", "commonmark_x": "md",
    "context": "tex", "csljson": "json", "docbook": "xml", "docbook4": "xml", "docbook5": "xml", "dzslides": "html",
    "epub2": "epub", "epub3": "epub", "gfm": "md", "html4": "html", "html5": "html", "jats": "xml",
    "latex": "tex", "markdown": "md", "markdown_github": "md", "markdown_mmd": "md", "markdown_phpextra": "md",
    "markdown_strict": "md", "mediawiki": "wiki", "plain": "txt", "revealjs": "html", "s5": "html",
    "slideous": "html", "slidy": "html", "tei": "xml", "texinfo": "texi", "typst": "typ", "chunkedhtml": "zip",
    "jats_archiving": "xml", "jats_articleauthoring": "xml", "jats_publishing": "xml",
}  # fmt: skip
# What must be in the archive, so that a name with the right suffix and the wrong content is told early.
_ARCHIVES = {
    "docx": ("a Word file", "word/"),
    "epub": ("an EPUB book", "META-INF/container.xml"),
    "odt": ("an OpenDocument text", "content.xml"),
    "pptx": ("a PowerPoint file", "ppt/"),
    "xlsx": ("an Excel file", "xl/"),
}
_OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
# What an archive may unfold to. A real book of photographs stays below; a bomb is far beyond.
UNFOLDED_BYTES_MAX = 512 * MIB
_RATIO_MAX = 100
_RATIO_FROM_BYTES = 32 * MIB
_ENTRIES_MAX = 20_000
_HEAD_BYTES = 2048


def reader_of(path: Path, asked: str | None = None) -> str:
    """Return the reader for a file, by its name unless one is asked for. Raises Failed (`unknown_format`)."""
    reader = asked or READERS.get(path.suffix.lower())
    if reader is None:
        raise Failed("unknown_format", f"no reader for files that end in {plain(path.suffix) or 'nothing'}")
    return reader


def suffix_of(form: str) -> str:
    """Return what the name of a file in this format ends in, without the dot."""
    return SUFFIXES.get(form, form)


def check(path: Path, reader: str) -> None:
    """Refuse what cannot be right before it is read. Raises Failed (`unreadable`, `encrypted`, `bomb`)."""
    with path.open("rb") as source:
        head = source.read(_HEAD_BYTES)
    if not head:
        raise Failed("unreadable", "the file is empty")
    if reader in _ARCHIVES:
        _check_archive(path, head, *_ARCHIVES[reader])
    elif reader == "pdf":
        if b"%PDF-" not in head:
            raise Failed("unreadable", "it is not a PDF: it does not begin as one")
    elif b"\0" in head:
        raise Failed("unreadable", f"it is not {reader}: it holds bytes that are no text")


def _check_archive(path: Path, head: bytes, kind: str, part: str) -> None:
    if head.startswith(_OLD_OFFICE):
        raise Failed("encrypted", "it is encrypted, or of the old Office format from before 2007")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_entries(archive, path.stat().st_size, kind, part)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as fault:
        raise Failed("unreadable", f"it is not {kind}, or cut short: {fault}") from None


def _check_entries(archive: zipfile.ZipFile, size_bytes: int, kind: str, part: str) -> None:
    entries = archive.infolist()
    unfolded = sum(entry.file_size for entry in entries)
    if len(entries) > _ENTRIES_MAX or unfolded > UNFOLDED_BYTES_MAX:
        raise Failed("bomb", f"it unfolds to {len(entries)} entries with {unfolded // MIB} MiB")
    if unfolded > _RATIO_FROM_BYTES and unfolded > _RATIO_MAX * size_bytes:
        raise Failed("bomb", f"{size_bytes // 1024} KiB unfold to {unfolded // MIB} MiB")
    if not any(entry.filename.startswith(part) for entry in entries):
        raise Failed("unreadable", f"it is not {kind}: it has no {part}")
    for entry in entries:
        if entry.flag_bits & 1:
            raise Failed("encrypted", "a part of it is encrypted")
        # No office program writes entities of its own; they are only good for growing without end.
        if entry.filename.endswith((".xml", ".rels", ".opf")) and _declares_entities(archive, entry):
            raise Failed("bomb", f"{plain(entry.filename)} declares entities of its own")


def _declares_entities(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(entry) as source:
            return b"<!ENTITY" in source.read(_HEAD_BYTES)
    except Exception as fault:  # noqa: BLE001 - zlib, lzma and zipfile each have their own
        raise Failed("unreadable", f"{plain(entry.filename)} in it is damaged: {fault}") from None
