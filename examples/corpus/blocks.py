"""A document as a list of blocks, so that one text can be written in any format."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a paragraph: plain, **strong**, or *emphasis*; with an address it is a link."""

    text: str
    style: str = "plain"
    address: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """A footnote, standing where it is called."""

    text: str


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of level 1 (a chapter) or 2 (a section)."""

    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Running text."""

    parts: tuple[Span | Note, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """A list, numbered or not."""

    items: tuple[str, ...]
    numbered: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table with one row of headings."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


Block = Heading | Paragraph | Listing | Table


@dataclass(frozen=True, slots=True)
class Document:
    """A titled text. `language` is a BCP 47 tag."""

    title: str
    author: str
    blocks: tuple[Block, ...] = field(default_factory=tuple)
    language: str = "en"
