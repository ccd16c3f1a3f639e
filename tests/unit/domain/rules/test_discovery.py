"""Which capability fits words: frozen requests with the answer that each must get."""

import pytest

from crank.domain.capability import Accelerator, Capability, Effects
from crank.domain.rules.discovery import CANDIDATES_MAX, find


def offer(name, summary, profile=None, version="1.0.0", accelerator=Accelerator.CPU, **properties):
    """Return an offer; a function unless it has a profile."""
    schema = {"type": "object", "properties": {key: {"description": text} for key, text in properties.items()}}
    model = "H200" if accelerator is Accelerator.GPU else None
    return Capability(
        name, version, summary, Effects.PURE, accelerator, model, profile, None, schema, {}, (), (), 60.0
    )  # fmt: skip


OFFERED = [
    offer("python.run.core", "Python 3.11 with its standard library, requests; no network and no new processes.", "python-core"),
    offer("python.run.docs", "python-core with pandoc and markdown, for converting and reading documents; no network.", "python-docs"),
    offer("python.run.interpreter", "python-core with numpy, pandas, matplotlib and pillow: tables, charts and pictures.", "python-interpreter"),
    offer("python.run.ml", "Python 3.11 with numpy and torch, as a CPU or a GPU build; no network.", "python-ml"),
    offer("document.convert", "Converts a document from one format to another.", source="Name of the input file."),
    offer("document.summarize", "Picks the sentences that say most about a document, and cites them."),
    offer("text.count", "Counts the words of a text.", text="The text."),
]  # fmt: skip
WANTED = {
    "convert this word file to markdown": "document.convert",
    "turn my docx into html": "document.convert",
    "shorten this report": "document.summarize",
    "give me a summary of the contract": "document.summarize",
    "draw a bar chart": "python.run.interpreter",
    "read an excel spreadsheet": "python.run.interpreter",
    "plot a figure with matplotlb": "python.run.interpreter",
    "train a neural network on the gpu": "python.run.ml",
    "use pytorch": "python.run.ml",
    "how many words are in here": "text.count",
    "I need pandoc": "python.run.docs",
    "python.run.docs": "python.run.docs",
    "please use text.count for this": "text.count",
}
NONSENSE = ("qwertz ploppf xyzzy", "the of and", "", "?!", "book me a flight to Paris", "what is the weather tomorrow")


@pytest.mark.parametrize("query", WANTED)
def test_words_find_the_capability(query):
    """The capability that is meant stands first, with a reason that quotes what was asked."""
    found = find(query, OFFERED)
    assert found[0].capability.name == WANTED[query]
    assert all(candidate.why for candidate in found)
    assert len(found) <= CANDIDATES_MAX
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


@pytest.mark.parametrize("query", NONSENSE)
def test_nonsense_finds_nothing(query):
    """What shares no meaningful word with any capability gets no candidate, rather than the least bad one."""
    assert find(query, OFFERED) == ()


def test_nothing_offered_finds_nothing():
    """Without a worker there is nothing to rank."""
    assert find("convert", []) == ()


def test_what_a_summary_denies_is_no_reason():
    """`no network` does not make an environment one for networks."""
    assert [one.capability.name for one in find("network access", OFFERED)] == []


def test_a_name_stands_once():
    """Several workers, versions and processors are one candidate, so that they do not push others out."""
    offers = [
        *OFFERED,
        offer("text.count", "Counts the words of a text.", version="2.0.0"),
        offer("text.count", "Counts the words of a text.", accelerator=Accelerator.GPU),
    ]
    names = [one.capability.name for one in find("count words", offers)]
    assert names.count("text.count") == 1


def test_the_order_does_not_depend_on_the_workers():
    """Equal fits come in the same order, whoever connected first."""
    assert [one.capability.name for one in find("python script", OFFERED)] == [
        one.capability.name for one in find("python script", list(reversed(OFFERED)))
    ]


def test_a_long_query_is_bounded():
    """A query of thousands of words is ranked by its first ones."""
    assert find("chart " + "zzz " * 5_000, OFFERED) is not None
