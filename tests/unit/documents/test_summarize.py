"""Summaries against the texts of tests/summaries, whose key sentences were written down before the code."""

from pathlib import Path

from documents.sentences import sentences, split
from documents.summarize import summarize
from documents.texts import Paragraph, Text

SET = Path(__file__).resolve().parents[2] / "summaries"
KEPT = 3


def _read(path: Path) -> tuple[Text, list[str], set[str]]:
    """Return a text, its sentences in order, and which of them are key sentences."""
    title, *lines = path.read_text("utf-8").splitlines()
    paragraphs: list[list[str]] = [[]]
    keys = set()
    for line in lines:
        if not line.strip():
            paragraphs.append([])
            continue
        paragraphs[-1].append(line[2:].strip())
        if line.startswith("+"):
            keys.add(line[2:].strip())
    heading = title.removeprefix("# ")
    told = [Paragraph(" ".join(each), 0, heading, None) for each in paragraphs if each]
    every = [sentence for each in paragraphs for sentence in each]
    return Text([Paragraph(heading, 1, None, None), *told], {}, [], []), every, keys


def _scores() -> dict[str, tuple[float, float, float]]:
    """Return for each text the share of key sentences: in the summary, in its lead, and in three drawn blindly."""
    found = {}
    for path in sorted(SET.glob("*.txt")):
        text, every, keys = _read(path)
        picked = [each["text"] for each in summarize(text, KEPT, lambda _part, _words: None)["sentences"]]
        hits, lead = (sum(each in keys for each in chosen) / KEPT for chosen in (picked, every[:KEPT]))
        found[path.stem] = (hits, lead, KEPT / len(every))
    return found


def test_summaries_beat_the_lead_sentences_and_chance() -> None:
    """The mean share of key sentences is far above that of the first sentences, and of blind choice."""
    scores = _scores()
    ours, lead, chance = (sum(each[column] for each in scores.values()) / len(scores) for column in range(3))
    print(f"score on {len(scores)} texts: summary {ours:.3f}, first sentences {lead:.3f}, blind choice {chance:.3f}")
    assert len(scores) >= 20
    assert ours >= 0.6
    assert ours > lead + 0.3
    assert ours > chance + 0.25


def test_every_text_of_the_set_has_three_key_sentences() -> None:
    """The set is what its README says."""
    for path in SET.glob("*.txt"):
        text, every, keys = _read(path)
        assert len(keys) == KEPT, path.name
        assert [each.text for each in sentences(text.paragraphs)] == every, path.name


def test_places_lead_back_to_the_sentences() -> None:
    """The characters that a place names are the sentence, and its paragraph is counted as the text has it."""
    for path in SET.glob("*.txt"):
        text, _, _ = _read(path)
        whole = text.whole()
        for sentence in summarize(text, 5, lambda _part, _words: None)["sentences"]:
            place = sentence["place"]
            assert whole[place["start"] : place["end"]] == sentence["text"]
            assert sentence["text"] in text.paragraphs[place["paragraph"] - 1].text
            assert place["heading"] == text.title


def test_a_stop_is_not_always_an_end() -> None:
    """Abbreviations, initials, numbers and footnote marks do not cut a sentence, or do not hide its end."""
    text = "Dr. Weiss paid 3.50 on the 4. May, i.e. too late. J. R. Moore saw it.2 \"Did he?\" He did!  Yes"
    assert [text[left:right] for left, right in split(text)] == [
        "Dr. Weiss paid 3.50 on the 4. May, i.e. too late.",
        "J. R. Moore saw it.2",
        '"Did he?"',
        "He did!",
        "Yes",
    ]


def test_a_text_without_sentences_gives_none() -> None:
    """Nothing is made up where there is nothing."""
    empty = summarize(Text([Paragraph("Title", 1, None, None)], {}, [], []), 3, lambda _part, _words: None)
    assert (empty["sentences"], empty["summary"], empty["sentences_in_all"]) == ([], "", 0)
