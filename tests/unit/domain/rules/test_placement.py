"""Placement: who may run a job, and who runs it best."""

from functools import partial

import pytest

from crank.domain.capability import Accelerator
from crank.domain.ids import WorkerId
from crank.domain.job import Refusal
from crank.domain.rules import placement
from crank.domain.rules.placement import Busy, Offer, Placed
from crank.domain.trust import Attestation
from tests.unit.domain.rules.builders import capability, request

GPU = capability(name="python.run.ml", accelerator=Accelerator.GPU, gpu_model="H100", env_profile="python-ml")
ML = capability(name="python.run.ml", env_profile="python-ml")


# Of a node that asks for no level of its own.
choose = partial(placement.choose, floor=Attestation.NONE)
satisfiers = partial(placement.satisfiers, floor=Attestation.NONE)


def offer(
    worker: str, offered: object = None, free: int = 1, node: str = "n1", level: Attestation = Attestation.NONE
) -> Offer:
    """Return an offer of a worker."""
    return Offer(WorkerId(worker), node, offered or capability(), free, level)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wanted", "constraint"),
    [
        (request(capability="python.run.nothing"), "capability"),
        (request(version="2"), "version"),
        (request(env_profile="python-docs"), "env_profile"),
        (request(accelerator=Accelerator.GPU), "accelerator"),
        (request(gpu_model="H100"), "gpu_model"),
        (request(attestation=Attestation.THUMBPRINT), "attestation"),
        (request(timeout_sec=61.0), "timeout_sec"),
        (request(memory_bytes=1 << 40), "memory_bytes"),
        (request(cpu_sec=1.0), "cpu_sec"),
        (request(idle_sec=1.0), "idle_sec"),
        (request(no_output_sec=1.0), "no_output_sec"),
    ],
)
def test_refusal_names_the_constraint(wanted: object, constraint: str) -> None:
    """A request that nobody can ever run is refused with the first constraint that leaves nobody."""
    verdict = satisfiers(wanted, [offer("a")], frozenset())  # type: ignore[arg-type]
    assert isinstance(verdict, Refusal)
    assert ("unsatisfied-capability", constraint) == (verdict.code, verdict.constraint)


@pytest.mark.parametrize("clock", ["cpu_sec", "idle_sec", "no_output_sec"])
def test_a_clock_may_be_lowered_and_never_raised(clock: str) -> None:
    """A request may ask for less than the profile gives; more is refused with what there is."""
    offered = offer("a", capability(limits={clock: 30.0}))
    assert satisfiers(request(**{clock: 30.0}), [offered], frozenset()) == [offered]
    verdict = satisfiers(request(**{clock: 30.1}), [offered], frozenset())
    assert isinstance(verdict, Refusal)
    assert "at most 30" in verdict.message


@pytest.mark.parametrize("wanted", [None, *Attestation])
@pytest.mark.parametrize("floor", list(Attestation))
def test_no_job_goes_below_the_level_that_it_or_the_node_asks_for(wanted: Attestation | None, floor: Attestation) -> None:
    """Left are the machines at the higher of the two levels and above; a request never lowers what the node asks for."""
    offers = [offer(level.label, level=level) for level in Attestation]
    able = placement.satisfiers(request(attestation=wanted), offers, frozenset(), floor=floor)
    assert isinstance(able, list)
    assert [one.attestation for one in able] == [one for one in Attestation if one >= max(wanted or 0, floor)]


@pytest.mark.parametrize(("wanted", "floor", "who"), [("JOIN", "THUMBPRINT", "the request"), ("NONE", "JOIN", "this node")])
def test_a_refusal_tells_who_asks_for_the_level(wanted: str, floor: str, who: str) -> None:
    """It names whose level nobody has, what there is, and keeps the job waiting where it was accepted before."""
    wants, offers = request(attestation=Attestation[wanted]), [offer("a", level=Attestation.THUMBPRINT)]
    verdict = placement.satisfiers(wants, offers[:1], frozenset(), floor=Attestation[floor])
    assert isinstance(verdict, Refusal)
    assert f"{who} asks for join; they have: thumbprint" in verdict.message
    assert isinstance(placement.choose(wants, offers, frozenset(), floor=Attestation[floor]), Busy)


def test_mounts_keep_a_job_on_their_node() -> None:
    """A job that reads a folder of another node has no local satisfier here."""
    verdict = satisfiers(request(), [offer("a", node="n1")], frozenset({"n2"}))
    assert isinstance(verdict, Refusal)
    assert verdict.code == "no-local-satisfier"


def test_gpu_job_reaches_only_a_gpu_worker() -> None:
    """The accelerator constraint leaves GPU workers alone."""
    wanted = request(capability="python.run.ml", env_profile="python-ml", accelerator=Accelerator.GPU)
    placed = choose(wanted, [offer("cpu", ML, 9), offer("gpu", GPU, 1)], frozenset())
    assert isinstance(placed, Placed)
    assert placed.worker_id == "gpu"


def test_cpu_is_preferred_when_nothing_was_asked() -> None:
    """A GPU that was not asked for is kept free."""
    wanted = request(capability="python.run.ml", env_profile="python-ml")
    placed = choose(wanted, [offer("gpu", GPU, 9), offer("cpu", ML, 1)], frozenset())
    assert isinstance(placed, Placed)
    assert placed.worker_id == "cpu"


def test_busy_workers_make_the_job_wait() -> None:
    """A job that somebody can run, but nobody now, waits with a reason."""
    verdict = choose(request(), [offer("a", free=0)], frozenset())
    assert isinstance(verdict, Busy)
    assert "0 of 1" in verdict.sentence


def test_newest_version_then_most_free_slots_win() -> None:
    """The choice is by version, then by free slots, then by name, so it repeats."""
    old = offer("old", capability(version="1.2.0"), 9)
    new = [offer("b", capability(version="1.10.0"), 2), offer("a", capability(version="1.10.0"), 1)]
    placed = choose(request(), [old, *new], frozenset())
    assert isinstance(placed, Placed)
    assert placed.worker_id == "b"
