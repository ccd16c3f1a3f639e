"""Text to sentences, each with the place where it stands."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from documents.texts import Paragraph

# After these a full stop ends no sentence.
_SHORT = frozenset(
    ["mr", "mrs", "ms", "dr", "prof", "st", "no", "nos", "vol", "fig", "eq", "ca", "approx", "dept", "est", "inc", "ltd", "co", "vs", "etc", "e.g", "i.e", "cf", "al", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec", "z.b", "d.h", "u.a", "usw", "bzw", "nr", "hr", "fr", "abs", "art", "bd"]
)
_END = re.compile(r"""[.!?…]+["'”’»)\]]*\d{0,2}(?=\s)|[。！？]+["'”’»)\]」』]*""")
_OPENS = re.compile(r"""\s*["'“‘«(\[]*[A-Z0-9À-ÖØ-ÞΑ-ΩА-Я\u3040-\u9fff]""")
SENTENCE_CHARS_MAX = 2_000


class Sentence(NamedTuple):
    """A sentence; start and end count characters of the whole text, paragraph and sentence count from 1."""

    text: str
    start: int
    end: int
    paragraph: int
    sentence: int
    of_paragraph: Paragraph


def sentences(paragraphs: Iterable[Paragraph]) -> Iterator[Sentence]:
    """Yield every sentence of the paragraphs that are no headings."""
    start = 0
    for number, paragraph in enumerate(paragraphs, start=1):
        if not paragraph.level:
            for count, (left, right) in enumerate(split(paragraph.text), start=1):
                yield Sentence(paragraph.text[left:right], start + left, start + right, number, count, paragraph)
        # As texts.Text.whole joins them.
        start += len(paragraph.text) + 2


def split(text: str) -> list[tuple[int, int]]:
    """Return where each sentence of a paragraph begins and ends."""
    found: list[tuple[int, int]] = []
    left = 0
    for end in _END.finditer(text):
        if end.end() - left < 2 or not _ends(text, left, end):
            continue
        found.append((left, end.end()))
        left = end.end() + len(text[end.end() :][:8]) - len(text[end.end() :][:8].lstrip())
    if text[left:].strip():
        found.append((left, len(text)))
    return found


def _ends(text: str, left: int, end: "re.Match[str]") -> bool:
    if text[end.start()] != ".":
        return True
    if not _OPENS.match(text, end.end()):
        return False
    if text[end.end() - 1].isdigit() and not text[end.start() - 1].isalpha():
        return False
    before = text[max(left, end.start() - 12) : end.start()].rpartition(" ")[2].lower().lstrip("(\"'“‘")
    # An abbreviation, an initial, or a number that counts ("on the 3. May").
    return before not in _SHORT and not re.fullmatch(r"[a-z]|\d{1,2}", before)
