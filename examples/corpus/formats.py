"""Writes a document as docx, odt, epub, html, Markdown or csv with the standard library alone.

The archives carry a fixed date, so that the same document gives the same bytes.
"""

import csv
import io
import zipfile
from collections.abc import Iterable
from xml.sax.saxutils import escape, quoteattr

from corpus.blocks import Block, Document, Heading, Listing, Note, Paragraph, Span, Table

_DATE = (2026, 1, 2, 3, 4, 6)
_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'


def write_html(document: Document) -> bytes:
    """HTML 5 with footnotes as links to the end of the page."""
    notes: list[str] = []
    body = "\n".join(_html_block(block, notes) for block in document.blocks)
    if notes:
        items = "".join(f'<li id="note-{number}">{escape(text)}</li>' for number, text in enumerate(notes, start=1))
        body += f'\n<section class="notes"><hr><ol>{items}</ol></section>'
    return (
        f'<!doctype html>\n<html lang="{document.language}">\n<head>\n<meta charset="utf-8">\n'
        f'<title>{escape(document.title)}</title>\n<meta name="author" content={quoteattr(document.author)}>\n'
        f"</head>\n<body>\n<h1>{escape(document.title)}</h1>\n{body}\n</body>\n</html>\n"
    ).encode()


def write_markdown(document: Document) -> bytes:
    """Markdown as pandoc reads it: a metadata block, pipe tables, footnotes."""
    notes: list[str] = []
    parts = [f'---\ntitle: "{document.title}"\nauthor: "{document.author}"\nlang: {document.language}\n---']
    parts += [_markdown_block(block, notes) for block in document.blocks]
    parts += [f"[^{number}]: {text}" for number, text in enumerate(notes, start=1)]
    return ("\n\n".join(parts) + "\n").encode()


def write_csv(table: Table) -> bytes:
    """Comma-separated values as RFC 4180 describes them."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(table.header)
    writer.writerows(table.rows)
    return text.getvalue().encode()


def write_docx(document: Document) -> bytes:
    """Office Open XML (ECMA-376): headings by style, real lists, tables, links and footnotes."""
    notes: list[str] = []
    links: list[str] = []
    body = _docx_paragraph([_docx_run(document.title)], "Title")
    body += "".join(_docx_block(block, notes, links) for block in document.blocks)
    footnotes = "".join(
        f'<w:footnote w:id="{number}"><w:p>{_docx_run(text)}</w:p></w:footnote>' for number, text in enumerate(notes, 1)
    )
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    relations = "".join(
        f'<Relationship Id="link{number}" Type="{office}/hyperlink" Target={quoteattr(address)} TargetMode="External"/>'
        for number, address in enumerate(links, start=1)
    )
    relations += "".join(
        f'<Relationship Id="{name}" Type="{office}/{name}" Target="{name}.xml"/>'
        for name in ("styles", "numbering", "footnotes")
    )
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml"
    overrides = "".join(
        f'<Override PartName="/word/{name}.xml" ContentType="{kind}.{content}+xml"/>'
        for name, content in (("document", "document.main"), *((n, n) for n in ("styles", "numbering", "footnotes")))
    )
    return _archive(
        (
            "[Content_Types].xml",
            f'{_XML}<Types xmlns="{package}/content-types">'
            '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Default Extension="xml" ContentType="application/xml"/>{overrides}</Types>',
        ),
        (
            "_rels/.rels",
            f'{_XML}<Relationships xmlns="{package}/relationships"><Relationship Id="main" '
            f'Type="{office}/officeDocument" Target="word/document.xml"/></Relationships>',
        ),
        ("word/document.xml", _docx_part("document", f"<w:body>{body}<w:sectPr/></w:body>")),
        ("word/footnotes.xml", _docx_part("footnotes", footnotes)),
        ("word/styles.xml", _docx_part("styles", _DOCX_STYLES)),
        ("word/numbering.xml", _docx_part("numbering", _DOCX_NUMBERING)),
        (
            "word/_rels/document.xml.rels",
            f'{_XML}<Relationships xmlns="{package}/relationships">{relations}</Relationships>',
        ),
    )


def write_odt(document: Document) -> bytes:
    """OpenDocument text (ISO/IEC 26300): `mimetype` first and not compressed, as the standard wants."""
    notes: list[str] = []
    body = f'<text:p text:style-name="Title">{escape(document.title)}</text:p>'
    body += "".join(_odt_block(block, notes) for block in document.blocks)
    names = "".join(
        f' xmlns:{short}="urn:oasis:names:tc:opendocument:xmlns:{long}:1.0"'
        for short, long in (
            ("office", "office"), ("text", "text"), ("table", "table"), ("style", "style"), ("look", "xsl-fo-compatible"),
            ("meta", "meta"), ("manifest", "manifest"),
        )
    )  # fmt: skip
    names += ' xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:dc="http://purl.org/dc/elements/1.1/"'
    kind = "application/vnd.oasis.opendocument.text"
    files = "".join(
        f'<manifest:file-entry manifest:full-path="{path}" manifest:media-type="{media}"/>'
        for path, media in (("/", kind), *((f"{name}.xml", "text/xml") for name in ("content", "meta", "styles")))
    )
    return _archive(
        ("mimetype", kind),
        (
            "META-INF/manifest.xml",
            f'{_XML}<manifest:manifest{names} manifest:version="1.2">{files}</manifest:manifest>',
        ),
        (
            "meta.xml",
            f'{_XML}<office:document-meta{names} office:version="1.2"><office:meta><dc:title>{escape(document.title)}'
            f"</dc:title><dc:creator>{escape(document.author)}</dc:creator></office:meta></office:document-meta>",
        ),
        (
            "styles.xml",
            f'{_XML}<office:document-styles{names} office:version="1.2"><office:styles><style:style style:name="Title" '
            'style:family="paragraph"/></office:styles></office:document-styles>',
        ),
        (
            "content.xml",
            f'{_XML}<office:document-content{names} office:version="1.2"><office:automatic-styles>{_ODT_STYLES}'
            f"</office:automatic-styles><office:body><office:text>{body}</office:text></office:body>"
            "</office:document-content>",
        ),
    )


def write_epub(document: Document) -> bytes:
    """EPUB 3: one chapter a heading of level 1, a navigation page, and the container that names them."""
    chapters = _chapters(document)
    names = [f"chapter-{number:02}.xhtml" for number in range(1, len(chapters) + 1)]
    manifest = "".join(
        f'<item id="c{number}" href="{name}" media-type="application/xhtml+xml"/>' for number, name in enumerate(names)
    )
    spine = "".join(f'<itemref idref="c{number}"/>' for number in range(len(names)))
    entries = "".join(
        f'<li><a href="{name}">{escape(title)}</a></li>' for name, (title, _blocks) in zip(names, chapters, strict=True)
    )
    package = (
        f'{_XML}<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="id">'
        '<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:identifier id="id">urn:x-crank:'
        f"{escape(document.title.lower().replace(' ', '-'))}</dc:identifier><dc:title>{escape(document.title)}</dc:title>"
        f"<dc:creator>{escape(document.author)}</dc:creator><dc:language>{document.language}</dc:language>"
        '<meta property="dcterms:modified">2026-01-02T03:04:06Z</meta></metadata><manifest>'
        '<item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/>'
        f"{manifest}</manifest><spine>{spine}</spine></package>"
    )
    container = (
        f'{_XML}<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="text/package.opf" media-type="application/oebps-package+xml"/></rootfiles></container>'
    )
    pages = [
        (f"text/{name}", _xhtml(title, "\n".join(_xhtml_blocks(blocks))))
        for name, (title, blocks) in zip(names, chapters, strict=True)
    ]
    nav = f'<nav xmlns:epub="http://www.idpf.org/2007/ops" epub:type="toc"><ol>{entries}</ol></nav>'
    return _archive(
        ("mimetype", "application/epub+zip"),
        ("META-INF/container.xml", container),
        ("text/package.opf", package),
        ("text/nav.xhtml", _xhtml(document.title, nav)),
        *pages,
    )


def _archive(*files: tuple[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files:
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type = zipfile.ZIP_STORED if name == "mimetype" else zipfile.ZIP_DEFLATED
            archive.writestr(entry, text.encode())
    return buffer.getvalue()


# --- HTML and EPUB ----------------------------------------------------------------------------


def _html_block(block: Block, notes: list[str]) -> str:
    if isinstance(block, Heading):
        return f"<h{block.level + 1}>{escape(block.text)}</h{block.level + 1}>"
    if isinstance(block, Paragraph):
        return f"<p>{''.join(_html_part(part, notes) for part in block.parts)}</p>"
    if isinstance(block, Listing):
        tag = "ol" if block.numbered else "ul"
        return f"<{tag}>{''.join(f'<li>{escape(item)}</li>' for item in block.items)}</{tag}>"
    head = "".join(f"<th>{escape(cell)}</th>" for cell in block.header)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in block.rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _html_part(part: Span | Note, notes: list[str]) -> str:
    if isinstance(part, Note):
        notes.append(part.text)
        return f'<sup><a href="#note-{len(notes)}">{len(notes)}</a></sup>'
    text = escape(part.text)
    if part.address:
        return f"<a href={quoteattr(part.address)}>{text}</a>"
    tag = {"strong": "strong", "emphasis": "em"}.get(part.style)
    return f"<{tag}>{text}</{tag}>" if tag else text


def _chapters(document: Document) -> list[tuple[str, list[Block]]]:
    chapters: list[tuple[str, list[Block]]] = [(document.title, [])]
    for block in document.blocks:
        if isinstance(block, Heading) and block.level == 1:
            chapters.append((block.text, []))
        else:
            chapters[-1][1].append(Heading(1, block.text) if isinstance(block, Heading) else block)
    return chapters


def _xhtml_blocks(blocks: Iterable[Block]) -> list[str]:
    notes: list[str] = []
    lines = [_html_block(block, notes) for block in blocks]
    lines += [f'<p id="note-{number}">{number}. {escape(text)}</p>' for number, text in enumerate(notes, start=1)]
    return lines


def _xhtml(title: str, body: str) -> str:
    return (
        f'{_XML}<html xmlns="http://www.w3.org/1999/xhtml"><head><title>{escape(title)}</title></head>'
        f"<body><h1>{escape(title)}</h1>\n{body}</body></html>"
    )


# --- Markdown ---------------------------------------------------------------------------------


def _markdown_block(block: Block, notes: list[str]) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {block.text}"
    if isinstance(block, Paragraph):
        return "".join(_markdown_part(part, notes) for part in block.parts)
    if isinstance(block, Listing):
        marks = (f"{number}." if block.numbered else "-" for number in range(1, len(block.items) + 1))
        return "\n".join(f"{mark} {item}" for mark, item in zip(marks, block.items, strict=True))
    rows = [block.header, tuple("---" for _ in block.header), *block.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _markdown_part(part: Span | Note, notes: list[str]) -> str:
    if isinstance(part, Note):
        notes.append(part.text)
        return f"[^{len(notes)}]"
    if part.address:
        return f"[{part.text}]({part.address})"
    mark = {"strong": "**", "emphasis": "*"}.get(part.style, "")
    return f"{mark}{part.text}{mark}"


# --- Office Open XML --------------------------------------------------------------------------

_W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_DOCX_STYLES = "".join(
    f'<w:style w:type="paragraph" w:styleId="{name.replace(" ", "")}"><w:name w:val="{name}"/></w:style>'
    for name in ("Normal", "Title", "heading 1", "heading 2")
)
_DOCX_NUMBERING = "".join(
    f'<w:abstractNum w:abstractNumId="{number}"><w:lvl w:ilvl="0"><w:start w:val="1"/><w:numFmt w:val="{form}"/>'
    f'<w:lvlText w:val="{text}"/></w:lvl></w:abstractNum>'
    for number, form, text in ((1, "bullet", "•"), (2, "decimal", "%1."))
) + "".join(f'<w:num w:numId="{n}"><w:abstractNumId w:val="{n}"/></w:num>' for n in (1, 2))


def _docx_part(name: str, body: str) -> str:
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    return f'{_XML}<w:{name} xmlns:w="{_W}" xmlns:r="{office}">{body}</w:{name}>'


def _docx_run(text: str, style: str = "plain") -> str:
    mark = {"strong": "<w:rPr><w:b/></w:rPr>", "emphasis": "<w:rPr><w:i/></w:rPr>"}.get(style, "")
    return f'<w:r>{mark}<w:t xml:space="preserve">{escape(text)}</w:t></w:r>'


def _docx_paragraph(runs: Iterable[str], style: str = "Normal", numbering: int = 0) -> str:
    number = f'<w:numPr><w:ilvl w:val="0"/><w:numId w:val="{numbering}"/></w:numPr>' if numbering else ""
    return f'<w:p><w:pPr><w:pStyle w:val="{style}"/>{number}</w:pPr>{"".join(runs)}</w:p>'


def _docx_block(block: Block, notes: list[str], links: list[str]) -> str:
    if isinstance(block, Heading):
        return _docx_paragraph([_docx_run(block.text)], f"heading{block.level}")
    if isinstance(block, Paragraph):
        return _docx_paragraph(_docx_inline(part, notes, links) for part in block.parts)
    if isinstance(block, Listing):
        numbering = 2 if block.numbered else 1
        return "".join(_docx_paragraph([_docx_run(item)], numbering=numbering) for item in block.items)
    columns = '<w:gridCol w:w="1600"/>' * len(block.header)
    rows = ""
    for position, row in enumerate((block.header, *block.rows)):
        mark = "<w:trPr><w:tblHeader/></w:trPr>" if position == 0 else ""
        cells = "".join(f"<w:tc>{_docx_paragraph([_docx_run(cell)])}</w:tc>" for cell in row)
        rows += f"<w:tr>{mark}{cells}</w:tr>"
    look = '<w:tblPr><w:tblLook w:firstRow="1"/></w:tblPr>'
    return f"<w:tbl>{look}<w:tblGrid>{columns}</w:tblGrid>{rows}</w:tbl>"


def _docx_inline(part: Span | Note, notes: list[str], links: list[str]) -> str:
    if isinstance(part, Note):
        notes.append(part.text)
        return f'<w:r><w:footnoteReference w:id="{len(notes)}"/></w:r>'
    if part.address:
        links.append(part.address)
        return f'<w:hyperlink r:id="link{len(links)}">{_docx_run(part.text)}</w:hyperlink>'
    return _docx_run(part.text, part.style)


# --- OpenDocument -----------------------------------------------------------------------------

_ODT_STYLES = (
    '<style:style style:name="strong" style:family="text"><style:text-properties look:font-weight="bold"/></style:style>'
    '<style:style style:name="emphasis" style:family="text"><style:text-properties look:font-style="italic"/></style:style>'
    '<text:list-style style:name="numbered"><text:list-level-style-number text:level="1" style:num-format="1" '
    'style:num-suffix="."/></text:list-style>'
    '<text:list-style style:name="bulleted"><text:list-level-style-bullet text:level="1" text:bullet-char="•"/>'
    "</text:list-style>"
)


def _odt_block(block: Block, notes: list[str]) -> str:
    if isinstance(block, Heading):
        return f'<text:h text:outline-level="{block.level}">{escape(block.text)}</text:h>'
    if isinstance(block, Paragraph):
        return f"<text:p>{''.join(_odt_part(part, notes) for part in block.parts)}</text:p>"
    if isinstance(block, Listing):
        style = "numbered" if block.numbered else "bulleted"
        items = "".join(f"<text:list-item><text:p>{escape(item)}</text:p></text:list-item>" for item in block.items)
        return f'<text:list text:style-name="{style}">{items}</text:list>'
    rows = [
        "".join(f"<table:table-cell><text:p>{escape(cell)}</text:p></table:table-cell>" for cell in row)
        for row in (block.header, *block.rows)
    ]
    head = f"<table:table-header-rows><table:table-row>{rows[0]}</table:table-row></table:table-header-rows>"
    body = "".join(f"<table:table-row>{row}</table:table-row>" for row in rows[1:])
    columns = f'<table:table-column table:number-columns-repeated="{len(block.header)}"/>'
    return f"<table:table>{columns}{head}{body}</table:table>"


def _odt_part(part: Span | Note, notes: list[str]) -> str:
    if isinstance(part, Note):
        notes.append(part.text)
        return (
            f'<text:note text:id="n{len(notes)}" text:note-class="footnote"><text:note-citation>{len(notes)}'
            f"</text:note-citation><text:note-body><text:p>{escape(part.text)}</text:p></text:note-body></text:note>"
        )
    # A leading space would be lost: OpenDocument collapses white space as HTML does.
    text = escape(part.text)
    if part.address:
        return f'<text:a xlink:type="simple" xlink:href={quoteattr(part.address)}>{text}</text:a>'
    return f'<text:span text:style-name="{part.style}">{text}</text:span>' if part.style != "plain" else text
