"""Which capability fits what somebody asks for in words: a ranking that says why, or that nothing fits.

Okapi BM25 over a capability's name, summary and argument names, with the name counting most. An exact name
wins whatever the words say. What shares no meaningful word with any capability gets no candidate at all.
"""

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crank.domain.capability import Capability

CANDIDATES_MAX = 3
QUERY_WORDS_MAX = 64
# How often a word counts where it stands.
_NAME_WEIGHT, _SUMMARY_WEIGHT, _SCHEMA_WEIGHT = 3.0, 2.0, 1.0
# The usual constants of BM25: how fast repetition stops counting, and how much length counts.
_K1, _B = 1.2, 0.6
# A word this alike is taken for a slip of the pen, at a discount.
_ALIKE, _ALIKE_CHARS, _ALIKE_WEIGHT = 0.84, 5, 0.6
# A stray word in common is no fit: this part of what was asked, weighed by rarity, must be covered.
_COVERED_MIN = 0.2
_STOP = frozenset(
    re.findall(
        r"\w+",
        "a an and any are as at be by can do does for from get give has have how i in into is it its me my need new no not "
        "of on one or our please run running some something that the their them then there these this to tool use using "
        "want was we what when which will with would you your capability many much here every each all also just like make "
        "lot some little",
    )
)
# What a summary says that a capability does not do: "no network", "no new processes".
_DENIED = re.compile(r"\b(?:no|without|never) (?:new )?\w+")
# Words that capabilities use, and what else people say for them.
_MEANINGS = (
    (("chart", "plot", "matplotlib"), ("graph", "figure", "diagram", "draw", "visualize", "visualise")),
    (("table", "pandas"), ("spreadsheet", "csv", "excel", "xlsx", "dataframe", "rows", "columns")),
    (("convert", "pandoc"), ("conversion", "transform", "translate", "export", "turn")),
    (("document", "markdown"), ("docx", "doc", "word", "md", "odt", "html", "epub", "pdf", "report")),
    (("summarize", "summary"), ("summarise", "digest", "abstract", "shorten", "gist")),
    (("extract",), ("parse", "read", "pull", "scrape")),
    (("picture", "image", "pillow"), ("photo", "png", "jpeg", "screenshot")),
    (("torch", "gpu"), ("train", "pytorch", "neural", "cuda", "ml", "tensor", "learning")),
    (("python",), ("script", "code", "program")),
    (("folder",), ("directory", "batch", "files")),
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A capability that may fit: a score to compare within one answer, and reasons in words."""

    capability: Capability
    score: float
    why: tuple[str, ...]


def find(query: str, offered: Sequence[Capability]) -> tuple[Candidate, ...]:
    """Return at most three candidates, the best first; none when nothing fits. The order is the same every time."""
    known = {(one.name, one.version, one.accelerator): one for one in offered}
    texts = [_Text(one) for _, one in sorted(known.items())]
    exact = {text.capability.name for text in texts if text.capability.name in query.lower().split()}
    wanted = _wanted(query)
    lengths = [sum(text.counts.values()) for text in texts]
    average = sum(lengths) / len(lengths) if lengths else 1.0
    # One place for a capability, whatever its versions and accelerators: the newest of the best.
    best: dict[str, Candidate] = {}
    for text, length in zip(texts, lengths, strict=True):
        candidate = _judge(text, wanted, texts, length / average, named=text.capability.name in exact)
        held = best.get(text.capability.name)
        if candidate is not None and (held is None or candidate.score >= held.score):
            best[text.capability.name] = candidate
    ranked = sorted(best.values(), key=lambda one: (-one.score, one.capability.name))
    return tuple(ranked[:CANDIDATES_MAX])


def _judge(
    text: "_Text", wanted: Sequence[str], texts: Sequence["_Text"], length: float, *, named: bool
) -> Candidate | None:
    hits = {word: hit for word in wanted if (hit := text.hit(word)) is not None}
    weighed = {word: _rarity(word, texts) for word in wanted}
    covered = sum(weighed[word] * hits[word].weight for word in hits)
    # A word that nothing here knows says less about what is meant than about how it was said.
    total = sum(weight / 2 if _unknown(word, texts) else weight for word, weight in weighed.items())
    if not named and (not total or covered / total < _COVERED_MIN):
        return None
    score = sum(
        weighed[word] * hit.weight * hit.count * (_K1 + 1) / (hit.count + _K1 * (1 - _B + _B * length))
        for word, hit in hits.items()
    )
    why = [f"{text.capability.name} is its name"] if named else []
    why += [hit.sentence(word) for word, hit in sorted(hits.items(), key=lambda pair: -weighed[pair[0]])]
    return Candidate(text.capability, round(score + (100.0 if named else 0.0), 4), tuple(why[:4]))


def _unknown(word: str, texts: Sequence["_Text"]) -> bool:
    return all(text.hit(word) is None for text in texts)


def _rarity(word: str, texts: Sequence["_Text"]) -> float:
    having = sum(text.hit(word) is not None for text in texts)
    return math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))


@dataclass(frozen=True, slots=True)
class _Hit:
    """A word that was found: as which word, where, how often, and for how much it counts."""

    found: str
    where: str
    count: float
    weight: float

    def sentence(self, word: str) -> str:
        same = "" if self.found in (word, _stem(word)) else f", as {self.found!r}"
        return f"{word!r} is in its {self.where}{same}"


class _Text:
    """The words of one capability, each counted by where it stands."""

    def __init__(self, capability: Capability) -> None:
        self.capability = capability
        self.counts: Counter[str] = Counter()
        self.where: dict[str, str] = {}
        self._hits: dict[str, _Hit | None] = {}
        schema = " ".join(_schema_words(capability.input_schema.get("properties")))
        for where, weight, source in (
            ("name", _NAME_WEIGHT, f"{capability.name} {capability.env_profile or ''}"),
            ("summary", _SUMMARY_WEIGHT, _DENIED.sub(" ", capability.summary.lower())),
            ("arguments", _SCHEMA_WEIGHT, schema),
        ):
            for word in map(_stem, _words(source)):
                self.counts[word] += weight  # type: ignore[assignment]  # a count by weight
                self.where.setdefault(word, where)

    def hit(self, said: str) -> _Hit | None:
        """Return where a word is found: itself, one of the same meaning, or one that differs by a slip."""
        word = _stem(said)
        if word not in self._hits:
            self._hits[word] = self._find(word)
        return self._hits[word]

    def _find(self, word: str) -> _Hit | None:
        for found, weight in ((word, 1.0), *((other, 0.7) for other in _SYNONYMS.get(word, ()))):
            if found in self.counts:
                return _Hit(found, self.where[found], float(self.counts[found]), weight)
        if len(word) >= _ALIKE_CHARS:
            for found in difflib.get_close_matches(word, sorted(self.counts), n=1, cutoff=_ALIKE):
                return _Hit(found, self.where[found], float(self.counts[found]), _ALIKE_WEIGHT)
        return None


def _wanted(query: str) -> list[str]:
    return list(dict.fromkeys(_words(query)))[:QUERY_WORDS_MAX]


def _words(text: str) -> list[str]:
    found = re.findall(r"[^\W_]+", text.lower())
    return [word for word in found if word not in _STOP and len(word) > 1]


def _stem(word: str) -> str:
    """Cut the endings that English bends words with; the same cut on both sides is all that matters."""
    for ending, kept in (("ations", 4), ("ation", 4), ("ies", 3), ("ing", 4), ("ed", 4), ("es", 4), ("s", 3)):
        if word.endswith(ending) and len(word) - len(ending) >= kept and not word.endswith("ss"):
            word = word[: -len(ending)] + ("y" if ending == "ies" else "")
            break
    return word[:-1] if word.endswith("e") and len(word) > 4 else word


def _schema_words(properties: object) -> Iterable[str]:
    if isinstance(properties, dict):
        for name, entry in list(properties.items())[:64]:
            yield str(name)
            if isinstance(entry, dict):
                yield str(entry.get("description", ""))[:400]


_SYNONYMS = {
    _stem(word): tuple(_stem(other) for other in used if other != word)
    for used, said in _MEANINGS
    for word in (*used, *said)
}
