"""A job for people and for programs: its end, its limit, its walls, and what they refused."""

from typing import Any

import pytest

from crank.cli.job_view import end_sentence, evidence_lines, job_object, tell_job, used_lines
from crank.client.results import JobResult, parse_job

END = {"reason": "timeout", "clock": "no_output", "message": "The job printed nothing for 2 s.", "exit_code": None}
METRICS = {"wall_sec": 2.5, "cpu_sec": 0.1, "peak_memory_bytes": 3 << 20, "setup_sec": 0.0021, "pool_hit": True}
DENIALS = [
    {"layer": "network", "action": "connect to \x1b[2Jevil.example:443", "count": 3, "told_by": "job"},
    {"layer": "cgroup", "action": "another process", "count": 1, "told_by": "kernel"},
]


def job(**changed: Any) -> JobResult:
    """Return a job that a clock ended, with changes."""
    document = {
        "job_id": "j", "status": "timed_out", "end": END, "metrics": {**METRICS, "tasks_peak": 4},
        "tier": "namespaces", "layers": ["seccomp", "landlock"], "denials": DENIALS, "notes": ["A note."],
    }  # fmt: skip
    return parse_job({**document, **changed})


def test_the_end_is_one_sentence_with_its_limit() -> None:
    """Which clock ended the job and how long it was stand in one line."""
    assert end_sentence(job()) == "job j timed_out: timeout (clock no_output). The job printed nothing for 2 s."


def test_what_it_used_and_what_held_it_are_told() -> None:
    """Peak, tasks, tier, walls and whether the sandbox stood ready."""
    assert used_lines(job()) == [
        "used       2.50 s wall, 0.10 s cpu, 3.0 MiB memory, 4 process(es) and thread(s)",
        "sandbox    namespaces: seccomp, landlock (stood ready, 2.1 ms)",
    ]
    assert used_lines(job(metrics=None)) == []
    assert "raised for it" in used_lines(job(metrics={**METRICS, "pool_hit": False}))[1]


def test_denials_name_layer_count_and_witness() -> None:
    """A reader sees whose word a refusal is; the notes follow."""
    assert evidence_lines(job()) == [
        "refused    connect to \x1b[2Jevil.example:443 3 times (network, told by the job)",
        "refused    another process (cgroup, counted by the kernel)",
        "note       A note.",
    ]
    assert evidence_lines(job(denials=["a sentence of an older node"], notes=[])) == []


def test_nothing_of_it_acts_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """What a job put into its evidence is shown, not obeyed."""
    tell_job(job())
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "^[[2Jevil.example" in shown


def test_a_program_finds_the_evidence_in_json() -> None:
    """--json carries tier, pool hit, layers and denials as values."""
    shown = job_object(job())
    assert (shown["tier"], shown["layers"]) == ("namespaces", ["seccomp", "landlock"])
    assert shown["metrics"]["pool_hit"] is True
    assert shown["denials"] == DENIALS
