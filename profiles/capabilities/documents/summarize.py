"""The sentences that say most of a text, as they stand in it; nothing is written anew, and no model is asked.

A sentence counts for the words that the whole text keeps coming back to, for words of the title, for saying how much, and for
words by which writers of English mark what was found, decided, caused or asked for. No two that say the same are taken.
"""

import heapq
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from documents.sentences import Sentence, sentences
from documents.texts import Text

METHOD = "extractive"
# Of a very long text only so many of the best are compared with each other.
_CANDIDATES_MAX = 400
_SHOWN_CHARS_MAX = 2_000
_WORD = re.compile(r"[^\W\d_]{3,}|\d[\d.,]*")
_STOP = frozenset(
    ["the", "and", "for", "that", "with", "this", "from", "was", "were", "are", "have", "has", "had", "not", "but", "they", "their", "them", "there", "then", "than", "its", "his", "her", "she", "him", "you", "your", "our", "who", "whom", "which", "what", "when", "where", "while", "will", "would", "could", "should", "can", "may", "might", "must", "been", "being", "into", "onto", "over", "under", "out", "off", "about", "after", "before", "between", "because", "since", "until", "also", "only", "just", "very", "more", "most", "much", "many", "some", "any", "all", "each", "every", "both", "few", "own", "same", "such", "too", "here", "how", "why", "does", "did", "done", "one", "two", "three", "first", "last", "next", "other", "another", "now", "again", "der", "die", "das", "und", "ist", "nicht", "ein", "eine", "einer", "eines", "dem", "den", "des", "mit", "von", "auf", "für", "als", "auch", "sich", "sie", "wir", "ihr"]
)
# Marks of what matters, by what they mark. Written before any text was measured.
_CUES = (
    (1.0, r"\b(found|finds?|shows?|showed|suggests?|results?|conclu\w+|measured|comparison|report(ed|s)?)\b"),
    (1.0, r"\b(decided|agreed|voted|announced|demands?|approved|ordered|offered|expects?|plans? to|resolved)\b"),
    (1.0, r"\b(recommends?|advises?|advise|warns?|asks?|must|should|never|always|only if|only be|have to|has to)\b"),
    (0.8, r"\b(because|therefore|so that|as a result|caused?|due to|since|consequence|thus|unless|without)\b"),
    (0.6, r"\b(from now on|from (january|february|march|april|may|june|july|august|september|october|november|december)|"
          r"starting|by the end|until|in future|as soon as|now)\b"),
    (0.5, r"\b(half|third|quarter|twice|double[sd]?|times|percent|per cent|million|billion|more than|less than|at least|"
          r"at most|longer|faster|rose|fell|fallen|lost)\b"),
)  # fmt: skip
_PATTERNS = tuple((weight, re.compile(pattern, re.IGNORECASE)) for weight, pattern in _CUES)
_WEIGHT_TITLE = 1.0
_WEIGHT_CUES = 0.8
_WEIGHT_NUMBER = 0.5
_WEIGHT_FIRST = 0.4
_CUES_MOST = 2.5
_REDUNDANT = 0.5
_SHORT_WORDS = 6
_LONG_WORDS = 45

Told = Callable[[float, str], None]


class _Candidate(NamedTuple):
    score: float
    order: int
    sentence: Sentence
    words: frozenset[str]


def summarize(text: Text, count: int, told: Told) -> dict[str, Any]:
    """Return the `count` sentences that say most, in the order of the text, each with its place."""
    ranked, seen = _rank(text, told)
    chosen: list[_Candidate] = []
    for candidate in ranked:
        if len(chosen) == count:
            break
        if all(_alike(candidate.words, other.words) < _REDUNDANT for other in chosen):
            chosen.append(candidate)
    chosen.sort(key=lambda candidate: candidate.order)
    picked = [_cited(candidate) for candidate in chosen]
    return {
        "title": text.title,
        "summary": " ".join(each["text"] for each in picked),
        "sentences": picked,
        "sentences_in_all": seen,
        "method": METHOD,
        "notes": text.notes,
    }


def _cited(candidate: _Candidate) -> dict[str, Any]:
    sentence = candidate.sentence
    place = {
        "paragraph": sentence.paragraph,
        "sentence": sentence.sentence,
        "start": sentence.start,
        "end": sentence.end,
        "heading": sentence.of_paragraph.heading,
        "page": sentence.of_paragraph.page,
    }
    return {"text": sentence.text[:_SHOWN_CHARS_MAX], "score": round(candidate.score, 3), "place": place}


def _rank(text: Text, told: Told) -> tuple[list[_Candidate], int]:
    common: Counter[str] = Counter()
    seen = 0
    for sentence in sentences(text.paragraphs):
        common.update(stems(sentence.text))
        seen += 1
    told(0.5, f"{seen} sentences")
    title = stems(text.title or "")
    best: list[_Candidate] = []
    for order, sentence in enumerate(sentences(text.paragraphs)):
        words = stems(sentence.text)
        candidate = _Candidate(_score(sentence, words, common, title, order), order, sentence, words)
        # Ties go to the earlier sentence.
        if len(best) < _CANDIDATES_MAX:
            heapq.heappush(best, (candidate.score, -order, candidate))  # type: ignore[misc]
        else:
            heapq.heappushpop(best, (candidate.score, -order, candidate))  # type: ignore[misc]
    told(1.0, f"{seen} sentences")
    ranked = sorted(best, reverse=True)
    return [each[2] for each in ranked], seen  # type: ignore[misc]


def stems(text: str) -> frozenset[str]:
    """Return the words that carry meaning, cut to their stems in a way that needs no language."""
    found = (word.lower() for word in _WORD.findall(text))
    return frozenset(word[:6] for word in found if word not in _STOP)


def _score(sentence: Sentence, words: frozenset[str], common: Counter[str], title: frozenset[str], order: int) -> float:
    length = len(sentence.text.split())
    if not words:
        return -1.0
    # A word that stands once says nothing of the text; one that comes back does, each time a little less.
    central = sum(math.log(common[word]) for word in words) / math.sqrt(len(words) + 3)
    cues = sum(weight for weight, pattern in _PATTERNS if pattern.search(sentence.text))
    shared = len(words & title) / len(title) if title else 0.0
    score = central + _WEIGHT_TITLE * min(1.0, 2 * shared) + _WEIGHT_CUES * min(_CUES_MOST, cues)
    score += _WEIGHT_NUMBER * bool(re.search(r"\d", sentence.text)) + _WEIGHT_FIRST * (order == 0)
    if length < _SHORT_WORDS or sentence.text.endswith("?"):
        score -= 1.0
    return score * min(1.0, 0.5 + length / 40) if length <= _LONG_WORDS else score * _LONG_WORDS / length


def _alike(one: Sequence[str] | frozenset[str], other: Sequence[str] | frozenset[str]) -> float:
    left, right = frozenset(one), frozenset(other)
    return len(left & right) / max(1, min(len(left), len(right)))
