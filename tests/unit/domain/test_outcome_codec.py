"""Outcomes as documents: nothing is lost, older documents are still read, evidence is read strictly."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.domain.ids import Digest
from crank.domain.outcome import (
    LAYERS,
    TOLD_BY,
    Artifact,
    Clock,
    Denial,
    End,
    Outcome,
    Reason,
    Skipped,
    Stream,
    Usage,
)
from crank.domain.outcome_codec import DENIALS_MAX, outcome_document, parse_outcome
from crank.errors import ProtocolError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
COUNT = st.integers(0, 2**53)
SECONDS = st.floats(0, 1e9)
DENIAL = st.builds(
    Denial, st.sampled_from([*LAYERS, "later_layer"]), TEXT, st.integers(1, 2**53), st.sampled_from(TOLD_BY)
)
OUTCOME = st.builds(
    Outcome,
    end=st.builds(
        End,
        reason=st.sampled_from(Reason),
        exit_code=st.none() | st.integers(0, 255),
        signal=st.none() | TEXT,
        clock=st.none() | st.sampled_from(Clock),
        code=st.none() | TEXT,
        message=st.none() | TEXT,
    ),
    stdout=st.builds(Stream, TEXT, COUNT, COUNT),
    stderr=st.builds(Stream, TEXT, COUNT, COUNT),
    has_result=st.booleans(),
    result=st.none() | COUNT | TEXT | st.lists(TEXT, max_size=2),
    displays=st.lists(st.dictionaries(TEXT, TEXT, max_size=2), max_size=2).map(tuple),
    artifacts=st.just((Artifact("a/b", 3, Digest("0" * 64)),)) | st.just(()),
    skipped=st.lists(st.builds(Skipped, TEXT, TEXT), max_size=2).map(tuple),
    usage=st.builds(Usage, SECONDS, SECONDS, st.none() | COUNT, SECONDS, st.booleans(), st.none() | COUNT),
    tier=st.sampled_from(["namespaces", "landlock", "none"]),
    denials=st.lists(DENIAL, max_size=3).map(tuple),
    layers=st.lists(st.sampled_from(LAYERS), unique=True).map(tuple),
    notes=st.lists(TEXT, max_size=2).map(tuple),
)
PLAIN = Outcome(End(Reason.EXITED, exit_code=0))
USAGE = {"wall_sec": 1.0, "cpu_sec": 0, "peak_memory_bytes": None, "setup_sec": 0.5}


def written(outcome: Outcome) -> dict[str, Any]:
    """Return the document as it comes out of JSON."""
    document: dict[str, Any] = json.loads(json.dumps(outcome_document(outcome)))
    return document


@given(OUTCOME)
def test_an_outcome_comes_back_equal(outcome: Outcome) -> None:
    """Whatever an outcome holds survives the trip through JSON."""
    assert parse_outcome(written(outcome)) == outcome


def test_the_usage_that_is_changed_below_is_good() -> None:
    """What the cases below change is readable before it is changed."""
    assert parse_outcome({**written(PLAIN), "usage": USAGE}).usage == Usage(1.0, 0, None, 0.5)


def test_a_document_of_the_first_version_is_still_read() -> None:
    """Denials that were sentences become notes, and what came later has its plain value."""
    old = written(PLAIN)
    for name in ("layers", "notes"):
        del old[name]
    for name in ("pool_hit", "tasks_peak"):
        del old["usage"][name]
    old["denials"] = ["told by the job: example.com", "2 process(es) were ended"]
    read = parse_outcome(old)
    assert read.notes == ("told by the job: example.com", "2 process(es) were ended")
    assert read.denials == ()
    assert read.layers == ()
    assert read.usage == Usage()


GOOD = {"layer": "network", "action": "connect to a:1", "count": 1, "told_by": "job"}


@pytest.mark.parametrize(
    "wrong",
    [
        {**GOOD, "count": 0},
        {**GOOD, "count": -1},
        {**GOOD, "count": True},
        {**GOOD, "count": 1.5},
        {**GOOD, "told_by": "me"},
        {**GOOD, "told_by": []},
        {**GOOD, "layer": "Network!"},
        {**GOOD, "layer": 'x"} 1\n'},
        {**GOOD, "layer": None},
        {**GOOD, "action": 3},
        {**GOOD, "action": "x" * 1_001},
        {**GOOD, "more": 1},
        {name: value for name, value in GOOD.items() if name != "count"},
        3,
        None,
        [],
    ],
)
def test_evidence_of_another_form_is_refused(wrong: object) -> None:
    """A denial names a layer, what was tried, how often and whose word it is, or the outcome is not read."""
    with pytest.raises(ProtocolError):
        parse_outcome({**written(PLAIN), "denials": [wrong]})


def test_evidence_is_bounded() -> None:
    """A worker cannot fill the store with evidence."""
    with pytest.raises(ProtocolError):
        parse_outcome({**written(PLAIN), "denials": [GOOD] * (DENIALS_MAX + 1)})


@pytest.mark.parametrize(
    "change",
    [
        {"layers": "network"},
        {"layers": [1]},
        {"notes": [None]},
        {"usage": {**USAGE, "pool_hit": 1}},
        {"usage": {**USAGE, "tasks_peak": -1}},
        {"usage": {**USAGE, "tasks_peak": "3"}},
        {"usage": {**USAGE, "wall_sec": "3"}},
        {"usage": {**USAGE, "setup_sec": -0.5}},
        {"usage": {**USAGE, "cpu_sec": True}},
        {"usage": {**USAGE, "peak_memory_bytes": 1.5}},
        {"usage": {}},
        {"usage": []},
        {"stdout": {"text": 3, "seen_bytes": 1, "kept_bytes": 1}},
        {"stderr": {"text": "", "seen_bytes": -1, "kept_bytes": 0}},
    ],
)
def test_what_came_later_is_read_strictly_too(change: dict[str, Any]) -> None:
    """Absent is fine, of another type is not."""
    with pytest.raises(ProtocolError):
        parse_outcome({**written(PLAIN), **change})
