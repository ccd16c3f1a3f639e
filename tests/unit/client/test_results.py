"""Answers of a node as typed values."""

import pytest

from crank.client.results import parse_job, parse_page
from crank.errors import ProtocolError

DOCUMENT = {
    "job_id": "j", "status": "failed", "capability": "python.run.core", "stdout": "x", "result": None,
    "end": {"reason": "raised", "exit_code": 1, "message": "ValueError: 3", "of_a_newer_node": True},
    "artifacts": [{"path": "a/b", "size_bytes": 3, "sha256": "0" * 64, "media_type": "text/plain"}],
    "metrics": {"wall_sec": 1.5, "cpu_sec": 1, "stdout": {"seen_bytes": 9, "kept_bytes": 4, "truncated": True}},
    "of_a_newer_node": 1,
}  # fmt: skip


def test_a_job_is_read() -> None:
    """Every field that we know is typed; what a newer node adds is kept in the document."""
    job = parse_job(DOCUMENT)
    assert (job.ok, job.ended, job.stdout) == (False, True, "x")
    assert job.end is not None
    assert (job.end.reason, job.end.exit_code) == ("raised", 1)
    assert job.artifacts[0].path == "a/b"
    assert job.metrics is not None
    assert job.metrics.stdout.truncated
    assert job.metrics.stderr.seen_bytes == 0
    assert job.document["of_a_newer_node"] == 1


@pytest.mark.parametrize("body", [None, [], {}, {"job_id": 1, "status": "x"}, {**DOCUMENT, "artifacts": [1]}])
def test_what_is_no_job_is_told(body: object) -> None:
    """An answer of another shape is a fault of the protocol, not a KeyError somewhere later."""
    with pytest.raises(ProtocolError):
        parse_job(body)


def test_a_page_is_read() -> None:
    """A page carries its jobs and the cursor of the next."""
    page = parse_page({"jobs": [DOCUMENT], "next": "j"})
    assert (len(page.jobs), page.next) == (1, "j")
    with pytest.raises(ProtocolError):
        parse_page({"jobs": None})
