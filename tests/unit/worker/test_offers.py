"""What a worker says it can do follows from its builds and its devices, and nothing else."""

from dataclasses import replace

from tests.support.bench import sample_build, sample_lease

from crank.domain.capability import capability_document, parse_capability
from crank.domain.profile import LIMIT_RANGES, Limits
from crank.testing.fake_gpu import fake_gpu
from crank.worker.devices import DevicePool, offered_model
from crank.worker.offers import FunctionOffer, choose_variant, find_offer, lowered, script_offers


def test_a_gpu_build_is_offered_only_with_a_gpu() -> None:
    """A machine without a GPU says nothing of GPUs; one with it names the model."""
    builds = [sample_build(), sample_build(name="python-ml", accelerator="gpu")]
    assert [str(offer.capability.accelerator) for offer in script_offers(builds, [])] == ["cpu"]
    with_gpu = script_offers(builds, [fake_gpu(0)])
    assert [(str(one.capability.accelerator), one.capability.gpu_model) for one in with_gpu] == [
        ("cpu", None),
        ("gpu", "Test GPU 80GB"),
    ]
    for offer in with_gpu:
        assert parse_capability(capability_document(offer.capability)) == offer.capability


def test_the_variant_is_chosen_by_what_is_there() -> None:
    """The GPU build is chosen with a GPU, the CPU build without."""
    profile = sample_build().profile
    assert choose_variant(profile, []) == "cpu"
    assert choose_variant(profile, [fake_gpu(0)]) == "gpu"


def test_a_lease_finds_the_newest_version_on_its_accelerator() -> None:
    """Two versions of one capability: the newer one by number, not by text."""
    offers = script_offers([sample_build(version="1.9.0"), sample_build(version="1.10.0")], [])
    found = find_offer(offers, sample_lease("x"))
    assert found is not None
    assert found.capability.version == "1.10.0"
    assert find_offer(offers, sample_lease("x", accelerator="gpu")) is None


def test_a_lease_lowers_time_and_memory_and_never_raises_them() -> None:
    """Time and memory count only below the profile's ceiling, CPU time follows; kept output may be more."""
    limits = Limits(wall_sec=60, cpu_sec=120, memory_bytes=1 << 29, output_bytes=1_000)
    less = lowered(limits, sample_lease("x", timeout_sec=6.0, max_output_bytes=10, memory_bytes=1 << 28))
    assert (less.wall_sec, less.cpu_sec, less.output_bytes, less.memory_bytes) == (6.0, 12.0, 10, 1 << 28)
    more = lowered(limits, sample_lease("x", timeout_sec=600.0, max_output_bytes=10_000, memory_bytes=1 << 40))
    assert more == replace(limits, output_bytes=10_000)


def test_a_lease_lowers_the_other_clocks_too() -> None:
    """CPU, idle and silence are each lowered by name and never raised; one that is named no longer follows."""
    limits = Limits(wall_sec=60, cpu_sec=120, idle_sec=30, no_output_sec=20)
    less = lowered(limits, sample_lease("x", timeout_sec=6.0, cpu_sec=100.0, idle_sec=1.0, no_output_sec=2.0))
    assert (less.cpu_sec, less.idle_sec, less.no_output_sec) == (100.0, 1.0, 2.0)
    more = lowered(limits, sample_lease("x", cpu_sec=121.0, idle_sec=31.0, no_output_sec=21.0))
    assert more == limits


def test_an_offer_names_its_limits_and_its_tier() -> None:
    """What a job may use and how it is walled in are said before anybody submits."""
    (offer,) = script_offers([sample_build(limits=Limits(idle_sec=9.0))], [], "landlock")
    assert offer.capability.limits["idle_sec"] == 9.0
    assert set(offer.capability.limits) == set(LIMIT_RANGES)
    assert offer.capability.tier == "landlock"
    assert parse_capability(capability_document(offer.capability)) == offer.capability


def test_a_function_stays_below_the_operators_ceilings() -> None:
    """What an author declares is lowered to what the machine allows, in what is enforced and in what is told."""
    capability = replace(script_offers([sample_build()], [])[0].capability, timeout_sec=100.0)
    offer = FunctionOffer(capability, "module:app").capped({"wall_sec": 5.0, "processes": 3})
    assert offer.capability.timeout_sec == 5.0
    assert (offer.limits.wall_sec, offer.limits.cpu_sec, offer.limits.processes) == (5.0, 20.0, 3)
    assert FunctionOffer(capability, "module:app").capped({}).limits.wall_sec == 100.0


def test_devices_go_to_one_holder_each() -> None:
    """Every device is handed out once, and again only after it came back."""
    pool = DevicePool([fake_gpu(1), fake_gpu(0)])
    first, second = pool.take(), pool.take()
    assert first is not None
    assert second is not None
    assert (first.index, second.index, pool.take()) == (0, 1, None)
    pool.give_back(first)
    pool.give_back(first)
    assert (pool.free, pool.take(), pool.take()) == (1, first, None)


def test_only_the_offered_model_is_handed_out() -> None:
    """A lease names no model, so a machine with two models offers the commoner one and keeps the other back."""
    devices = [fake_gpu(0, model="A"), fake_gpu(1, model="B"), fake_gpu(2, model="B")]
    assert offered_model(devices) == "B"
    assert DevicePool(devices).free == 2
