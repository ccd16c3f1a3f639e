"""Stored documents read back to equal values, and damaged ones are told apart."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.domain import job_codec
from crank.domain.outcome import Clock, End, Reason
from crank.errors import StoreError
from crank.testing.samples import sample_full_job, sample_job, sample_record, sample_request, sample_worker

_TEXTS = st.text(alphabet=st.characters(codec="utf-8"), max_size=20)
_ENDS = st.builds(
    End,
    reason=st.sampled_from(Reason),
    exit_code=st.none() | st.integers(0, 255),
    signal=st.none() | _TEXTS,
    clock=st.none() | st.sampled_from(Clock),
    code=st.none() | _TEXTS,
    message=st.none() | _TEXTS,
)


@given(end=st.none() | _ENDS, timeout_sec=st.none() | st.floats(0.001, 1e6), hold=st.integers(-(2**63), 2**63 - 1))
def test_jobs_survive_json(end: End | None, timeout_sec: float | None, hold: int) -> None:
    """Any end, any limit and any amount of money come back exactly, with their types."""
    job = replace(sample_full_job("a"), end=end, hold=hold, request=replace(sample_request(), timeout_sec=timeout_sec))
    again = job_codec.parse_job(json.loads(json.dumps(job_codec.job_document(job))))
    assert again == job
    assert type(again.status) is type(job.status)
    assert again.end is None or isinstance(again.end.reason, Reason)


def test_records_and_workers_survive_json() -> None:
    """So do the other things that are stored as documents."""
    record, worker = sample_record("r", job_id="a"), sample_worker("w")
    assert job_codec.parse_record(json.loads(json.dumps(job_codec.record_document(record)))) == record
    document = {
        **{name: getattr(worker, name) for name in worker.__slots__},
        "capabilities": job_codec.capabilities_document(worker),
        "attestation": worker.attestation.label,
    }
    assert job_codec.parse_known_worker(json.loads(json.dumps(document))) == worker


@pytest.mark.parametrize("change", [{"status": "nonsense"}, {"request": {}}, {"end": {"reason": "?"}}, {"extra": 1}])
def test_a_damaged_document_is_a_damaged_store(change: dict[str, object]) -> None:
    """What cannot be read back is never guessed."""
    document = {**job_codec.job_document(sample_job("a")), **change}
    with pytest.raises(StoreError) as caught:
        job_codec.parse_job(document)
    assert caught.value.error_code == "store_corrupt"
