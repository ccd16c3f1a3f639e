"""The wire: every message survives the trip, its form is frozen in files, and noise is refused by one exception."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank import wire
from crank.domain import outcome_codec
from crank.domain.ids import Digest
from crank.domain.outcome import Artifact, Clock, Denial, End, Outcome, Reason, Skipped, Stream, Usage
from crank.errors import ProtocolError
from crank.wire.calls import Call, CallAnswer, CallFile, CallMount, LeaseHandle

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "wire"
SHA = "a" * 64
SESSION = "0190a6a4-7b1c-7d2e-8f00-0123456789ab"
CAPABILITY = {
    "schema": 1,
    "name": "python.run.core",
    "version": "1.0.0",
    "summary": "Runs Python.",
    "effects": "external",
}

MESSAGES: dict[str, wire.Message] = {
    "hello": wire.Hello(
        version_min=1,
        version_max=1,
        worker_id="main",
        instance_id="0190a6a4-7b1c-7d2e-8f00-0123456789ab",
        node_id="node-1",
        software="crank 0.1.0",
        slots=2,
        capabilities=[CAPABILITY],
        holding=[
            wire.Holding(job_id="j1", epoch=2, phase="running"),
            wire.Holding(job_id="j2", epoch=1, phase="finished"),
        ],
    ),
    "beat": wire.Beat(free_slots=1),
    "started": wire.Started(job_id="j1", epoch=2),
    "output": wire.Output(
        job_id="j1",
        epoch=2,
        events=[
            wire.JobEvent(epoch=2, seq=1, kind="stdout", text="héllo\n", offset_bytes=0, fraction=None, at_ms=3),
            wire.JobEvent(epoch=2, seq=2, kind="progress", text="half", offset_bytes=0, fraction=0.5, at_ms=4),
        ],
    ),
    "finished": wire.Finished(job_id="j1", epoch=2, outcome=None, outcome_blob=SHA),
    "declined": wire.Declined(job_id="j1", epoch=2, code="draining", message="The worker is leaving."),
    "draining": wire.Draining(),
    "welcome": wire.Welcome(
        version=1,
        controller_id="spiffe://crank.internal/controller/main",
        beat_sec=2.0,
        lease_sec=12.0,
        resumed=[wire.Resumed(job_id="j1", epoch=2, verdict="continue", next_seq=3)],
    ),
    "rejected": wire.Rejected(code="protocol_error", message="No common version.", fix="Update the worker."),
    "lease": wire.Lease(
        job_id="j1",
        epoch=2,
        capability="python.run.core",
        accelerator="cpu",
        code="print(1+1)",
        args={"n": [1, None, "x"]},
        files=[wire.LeaseFile(path="a/b.csv", sha256=SHA, size_bytes=3)],
        mounts=[wire.LeaseMount(name="docs", host_path="/srv/docs")],
        timeout_sec=30.0,
        max_output_bytes=None,
        memory_bytes=None,
        traceparent=None,
    ),
    "cancel": wire.Cancel(job_id="j1", epoch=2),
    "settled": wire.Settled(job_id="j1", epoch=2, verdict="accepted"),
    "pools": wire.Pools([wire.Pool(profile="python-core", parked=2, burnt=1)]),
    "opened": wire.Opened(session_id=SESSION, tier="namespaces"),
    "sessions": wire.Sessions(opened=[wire.Opened(session_id=SESSION, tier="namespaces")], opening=["s2"]),
    "ended": wire.Ended(
        session_id=SESSION,
        reason="crashed",
        code="memory",
        message="The job j1 ended it.",
        job_id="j1",
        end={"reason": "memory"},
    ),
    "answered": wire.Answered(call_id="c1", verdict="not_found", code="file_not_found", message="No.", answer=None),
    "open": wire.Open(
        session_id=SESSION,
        capability="python.run.core",
        accelerator="cpu",
        mounts=[wire.LeaseMount(name="docs", host_path="/srv/docs")],
        memory_bytes=None,
        idle_sec=600.0,
        lifetime_sec=3600.0,
    ),
    "touch": wire.Touch(session_id=SESSION, idle_sec=None, lifetime_sec=7200.0),
    "close": wire.Close(session_id=SESSION),
    "noted": wire.Noted(session_id=SESSION),
    "interrupt": wire.Interrupt(call_id="c1", job_id="j1", epoch=2),
    "stdin": wire.Stdin(call_id="c1", job_id="j1", epoch=2, base64="aGk=", offset_bytes=0, end=True),
    "files": wire.Files(call_id="c1", session_id=SESSION, verb="put", path="a/b.csv", sha256=SHA, size_bytes=3),
    "held": wire.Held(holding=[wire.Holding(job_id="j1", epoch=2, phase="running")], sessions=[SESSION]),
    "trusted": wire.Trusted(sequence=7, revision=2),
    "trust": wire.Trust(
        sequence=7,
        roots=["MIIB"],
        revision=2,
        revoked_ids=["spiffe://crank.internal/worker/lost"],
        revoked_serials=["1a2b"],
    ),
}
# What version 2 added to messages of version 1, each message whole.
EXTENDED: dict[str, wire.Message] = {
    "lease": wire.Lease(
        job_id="j1",
        epoch=2,
        capability="python.run.docs",
        accelerator="cpu",
        code=None,
        args=None,
        files=[],
        mounts=[],
        timeout_sec=None,
        max_output_bytes=None,
        memory_bytes=None,
        traceparent=None,
        session_id=SESSION,
        context="main",
        program=["pandoc", "a.md"],
        stdin=True,
        cpu_sec=1.5,
        idle_sec=2.0,
        no_output_sec=3.0,
    ),
}
CALLS: dict[str, wire.Message] = {
    "call": Call(
        job_id="j1",
        epoch=2,
        number=3,
        handle="convert",
        capability="document.convert",
        version="1.0.0",
        args={"to": "markdown"},
        code=None,
        files=[CallFile(path="a/b.pdf", sha256=SHA, size_bytes=3)],
        mounts=[CallMount(name="docs", handle="papers")],
        handles=["convert"],
        timeout_sec=30.0,
    ),
    "callanswer": CallAnswer(
        job_id="j1",
        epoch=2,
        number=3,
        verdict="done",
        status="succeeded",
        reason="exited",
        code=None,
        message=None,
        fix=None,
        has_result=True,
        result={"n": [1]},
        files=[CallFile(path="a/b.md", sha256=SHA, size_bytes=3)],
        left_out=1,
    ),
}
MESSAGES |= CALLS
# A lease with everything that version 3 brought.
_LEASE = MESSAGES["lease"]
assert isinstance(_LEASE, wire.Lease)
HANDED = replace(
    _LEASE,
    handles=[
        LeaseHandle("convert", "call", "document.*", "1.0.0", ["papers"], 3),
        LeaseHandle("papers", "mount", None, None, None, None),
    ],
    called=True,
)
SINCE_2 = frozenset(
    ("pools", "opened", "sessions", "ended", "answered", "open", "touch", "close", "noted", "interrupt", "stdin", "files")
)
SINCE_3 = frozenset(("held", "trusted", "trust", *CALLS))
# What version 3 added to messages of earlier versions, each message whole.
EXTENDED_3: dict[str, wire.Message] = {
    "hello": wire.Hello(
        version_min=3,
        version_max=3,
        worker_id="main-gpu-456789ab",
        instance_id=SESSION,
        node_id="gpu-456789ab",
        software="crank 0.1.0",
        slots=2,
        capabilities=[],
        holding=[],
        renews=True,
        manifest="eyJhbGciOiJFUzI1NiJ9.e30.c2ln",
    ),
}
OUTCOME = Outcome(
    end=End(Reason.TIMEOUT, clock=Clock.WALL, message="The job passed 30 s."),
    stdout=Stream("half", 9, 4),
    has_result=True,
    result={"n": 1},
    displays=({"text/plain": "x"},),
    artifacts=(Artifact("a/b.md", 3, Digest(SHA), "text/markdown"),),
    skipped=(Skipped("link", "a link"),),
    usage=Usage(1.5, 0.5, 1024, 0.1, pool_hit=True, tasks_peak=3),
    tier="namespaces",
    denials=(Denial("network", "connect to example.com:443", 2, "job"),),
    layers=("landlock", "seccomp"),
    notes=("a note",),
)


def test_every_message_is_covered() -> None:
    """A new message cannot be added without its golden file."""
    assert set(MESSAGES) == set(wire._KINDS)


def _golden() -> list[tuple[str, wire.Message]]:
    files = [(f"v{_since(name)}/{name}", message) for name, message in MESSAGES.items()]
    files += [(f"v2/{name}", message) for name, message in EXTENDED.items()]
    return [*files, *((f"v3/{name}", message) for name, message in EXTENDED_3.items()), ("v3/lease", HANDED)]


def _since(name: str) -> int:
    return 3 if name in SINCE_3 or name in CALLS else 2 if name in SINCE_2 else 1


@pytest.mark.parametrize(("name", "message"), _golden())
def test_golden_form_holds(name: str, message: wire.Message) -> None:
    """The bytes that each version speaks do not change, in either direction."""
    file = GOLDEN / f"{name}.json"
    if os.environ.get("CRANK_TEST_GOLDEN") == "write":
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(json.loads(wire.encode(message)), indent=2, ensure_ascii=False) + "\n", "utf-8")
    frozen = file.read_text("utf-8")
    assert json.loads(wire.encode(message)) == json.loads(frozen)
    assert wire.decode(frozen) == message


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_a_field_too_many_or_too_few_is_refused(name: str) -> None:
    """Strict in both directions: nothing is ignored and nothing is guessed."""
    body = json.loads(wire.encode(MESSAGES[name]))
    with pytest.raises(ProtocolError):
        wire.decode(json.dumps({**body, "surprise": 1}))
    for field in set(body) - {"t"}:
        with pytest.raises(ProtocolError):
            wire.decode(json.dumps({key: value for key, value in body.items() if key != field}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.binary(max_size=300) | st.text(max_size=300))
def test_noise_is_refused_by_one_exception(raw: bytes | str) -> None:
    """A peer that sends noise cannot make anything else happen."""
    with pytest.raises(ProtocolError):
        wire.decode(raw)


@given(st.sampled_from(sorted(MESSAGES)), st.data())
def test_a_damaged_message_is_read_or_refused(name: str, data: st.DataObject) -> None:
    """A message with any field replaced by any value is well typed, or refused by one exception."""
    body = json.loads(wire.encode(MESSAGES[name]))
    field = data.draw(st.sampled_from(sorted(body)))
    body[field] = data.draw(JSON)
    try:
        message = wire.decode(json.dumps(body))
    except ProtocolError:
        return
    assert wire.decode(wire.encode(message)) == message


def test_a_large_message_is_refused_on_both_sides() -> None:
    """The ceiling holds before anything is parsed."""
    big = "x" * (wire.MESSAGE_BYTES_MAX + 1)
    with pytest.raises(ProtocolError):
        wire.encode(wire.Declined(job_id="j", epoch=1, code="c", message=big))
    with pytest.raises(ProtocolError):
        wire.decode(big)


def test_a_beat_is_small() -> None:
    """What is sent all the time costs at most 200 bytes."""
    assert len(wire.encode(wire.Beat(free_slots=1024))) <= 200


def test_an_outcome_comes_back_equal() -> None:
    """The document of an outcome loses nothing on its way through JSON."""
    document = json.loads(json.dumps(outcome_codec.outcome_document(OUTCOME)))
    assert outcome_codec.parse_outcome(document) == OUTCOME


@pytest.mark.parametrize(
    "change",
    [
        {"end": None},
        {"end": {"reason": "made-up"}},
        {"artifacts": [{"path": "../x", "size_bytes": 1, "sha256": SHA, "media_type": "x"}]},
        {"artifacts": [{"path": "/x", "size_bytes": 1, "sha256": SHA, "media_type": "x"}]},
        {"artifacts": "x"},
        {"stdout": {"text": "x", "more": 1}},
        {"usage": 3},
        {"surprise": 1},
    ],
)
def test_a_malformed_outcome_is_refused(change: dict[str, Any]) -> None:
    """A worker cannot say of its job what the contract has no place for."""
    with pytest.raises(ProtocolError):
        outcome_codec.parse_outcome({**json.loads(json.dumps(outcome_codec.outcome_document(OUTCOME))), **change})


@pytest.mark.parametrize("body", [None, [], "x", {}])
def test_what_is_no_outcome_is_refused(body: object) -> None:
    """Nor is anything else an outcome."""
    with pytest.raises(ProtocolError):
        outcome_codec.parse_outcome(body)
