"""A shipped capability on the worker: the order that its code finds, and what of its answer is believed."""

from dataclasses import asdict
from typing import Any

import pytest
from tests.support.bench import sample_build, sample_lease

from crank.domain.capability import Effects
from crank.domain.json import JsonValue
from crank.domain.outcome import End, Outcome, Reason
from crank.ports import ShippedCapability
from crank.wire import LeaseFile, LeaseMount
from crank.worker.offers import lowered, shipped_offers
from crank.worker.runs import ShippedRun

SHIPPED = ShippedCapability(
    "document.convert", "1.2.3", "Converts.", "python-docs", Effects.PURE, ("unreadable",), {}, {}, "the code", "0" * 64
)
(OFFER,) = shipped_offers([sample_build(name="python-docs")], [SHIPPED])


class _Sandbox:
    """Takes what it is to run, and answers as it was told to."""

    tier = "namespaces"

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.ran: list[tuple[str, JsonValue]] = []

    async def run_python(self, code: str, args: JsonValue, sink: Any) -> Outcome:
        """Keep the order."""
        self.ran.append((code, args))
        return self.outcome


async def _run(answer: JsonValue, **lease: Any) -> tuple[Outcome, _Sandbox]:
    sandbox = _Sandbox(Outcome(End(Reason.EXITED, exit_code=0), has_result=True, result=answer))
    run = ShippedRun(sandbox, sample_lease(None, **lease), OFFER)  # type: ignore[arg-type]
    return await run.run({"to": "pdf"}, None), sandbox  # type: ignore[arg-type]


async def test_the_order_names_what_the_job_was_given() -> None:
    """Its own code runs, with args, files and mounts by name, and the limits of this job; no path of the host is in it."""
    files = [LeaseFile("a.md", "0" * 64, 1), LeaseFile(".crank/kept.tar", "1" * 64, 1)]
    lease: dict[str, Any] = {"files": files, "mounts": [LeaseMount("docs", "/srv/docs")], "timeout_sec": 5.0}
    _, sandbox = await _run({"reason": "exited", "exit_code": 0, "has_result": True, "result": 1}, **lease)
    ((code, order),) = sandbox.ran
    assert code == "the code"
    assert order == {
        "capability": "document.convert",
        "args": {"to": "pdf"},
        "files": ["a.md"],
        "mounts": ["docs"],
        "limits": asdict(lowered(OFFER.limits, sample_lease(None, timeout_sec=5.0))),
        "version": OFFER.marks,
    }


async def test_its_result_is_the_jobs_result() -> None:
    """The answer's document is opened; what is around it is not shown."""
    outcome, _ = await _run({"reason": "exited", "exit_code": 0, "has_result": True, "result": {"n": 1}})
    assert (outcome.end.reason, outcome.result) == (Reason.EXITED, {"n": 1})


@pytest.mark.parametrize(("code", "told"), [("unreadable", "unreadable"), ("made_up", "bad_answer")])
async def test_only_declared_codes_are_told(code: str, told: str) -> None:
    """A caller can rely on the list of codes."""
    outcome, _ = await _run({"reason": "raised", "exit_code": 1, "code": code, "message": "it is cut short"})
    assert (outcome.end.reason, outcome.end.code, outcome.end.message) == (Reason.RAISED, told, "it is cut short")
    assert told in OFFER.capability.error_codes


@pytest.mark.parametrize("answer", [None, [], {"reason": "timeout"}, {"reason": "exited", "exit_code": "0"}, {}])
async def test_an_answer_of_another_form_is_a_broken_word(answer: JsonValue) -> None:
    """Whatever took the code over says nothing about how the job ended."""
    outcome, _ = await _run(answer)
    assert outcome.end.reason is Reason.PROTOCOL_VIOLATION
    assert not outcome.has_result


async def test_its_profiles_limits_are_its_ceilings() -> None:
    """It can use what a script in that profile can, and says so."""
    assert OFFER.limits == OFFER.build.profile.limits
    assert OFFER.capability.limits == asdict(OFFER.limits)
