"""What a worker can do, as capabilities, and what it needs at hand to do each of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from crank.domain.capability import Accelerator, Capability, Effects, Isolation
from crank.domain.profile import LIMIT_RANGES, Limits, Profile, under
from crank.domain.quantity import TIMEOUT_SEC_MAX
from crank.domain.worker import GpuDevice
from crank.ports import ProfileBuild, ShippedCapability
from crank.wire import Lease, Open
from crank.worker.devices import offered_model

# Numeric libraries in a sandbox use no more threads than this.
PROCESSORS_MAX = 4


@dataclass(frozen=True, slots=True)
class ScriptOffer:
    """A capability that runs the caller's script in a built profile."""

    capability: Capability
    build: ProfileBuild

    @property
    def limits(self) -> Limits:
        """Return the ceilings of one job."""
        return self.build.profile.limits


@dataclass(frozen=True, slots=True)
class FunctionOffer:
    """A capability that is a worker author's own function, found at `module:app`.

    ceilings   what the operator allows any job here, by the names of `profile.Limits`
    isolation  what its calls share
    """

    capability: Capability
    target: str
    ceilings: Mapping[str, float] = field(default_factory=dict)
    isolation: Isolation = Isolation.PER_CALL

    @property
    def limits(self) -> Limits:
        """Return the ceilings of one call; its threads may use several processors."""
        own = self.capability
        return under(
            Limits(
                wall_sec=own.timeout_sec,
                cpu_sec=min(TIMEOUT_SEC_MAX, own.timeout_sec * PROCESSORS_MAX),
                memory_bytes=own.memory_bytes or Limits().memory_bytes,
            ),
            self.ceilings,
        )

    def capped(self, ceilings: Mapping[str, float], tier: str | None = None) -> "FunctionOffer":
        """Return the offer as the operator allows it: what it says of its limits is lowered too.

        tier  how well its calls are walled in here
        """
        offer = replace(self, ceilings=ceilings)
        limits = offer.limits
        told = replace(
            self.capability,
            timeout_sec=limits.wall_sec,
            memory_bytes=limits.memory_bytes,
            limits=asdict(limits),
            tier=tier,
        )
        return replace(offer, capability=told)


@dataclass(frozen=True, slots=True)
class ShippedOffer:
    """A capability that comes with Crank: its own code in a built profile.

    marks  what decides its results beside what a job gives it: code, profile and version in one word
    """

    capability: Capability
    build: ProfileBuild
    code: str
    marks: str

    @property
    def limits(self) -> Limits:
        """Return the ceilings of one job."""
        return self.build.profile.limits


Offer = ScriptOffer | FunctionOffer | ShippedOffer


def choose_variant(profile: Profile, devices: Sequence[GpuDevice]) -> str:
    """Choose which variant of a profile a worker builds and loads at its start: `gpu` or `cpu`.

    The GPU build is chosen only where a GPU is present now, so a machine without one never loads it.
    """
    if "gpu" in profile.locks and (devices or "cpu" not in profile.locks):
        return "gpu"
    return "cpu"


def script_offers(
    builds: Sequence[ProfileBuild], devices: Sequence[GpuDevice], tier: str | None = None
) -> tuple[ScriptOffer, ...]:
    """Turn built profiles into offers; a GPU build without a GPU is not offered.

    tier  how well their jobs are walled in here
    """
    offers = []
    for build in builds:
        accelerator = Accelerator(build.accelerator)
        model = offered_model(devices) if accelerator is Accelerator.GPU else None
        if accelerator is Accelerator.GPU and model is None:
            continue
        offers.append(ScriptOffer(_capability(build, accelerator, model, tier), build))
    return tuple(offers)


def _capability(build: ProfileBuild, accelerator: Accelerator, model: str | None, tier: str | None) -> Capability:
    profile = build.profile
    return Capability(
        name=profile.capability,
        version=profile.version,
        summary=profile.summary,
        # What a script does outside is not known, so its caller says when it may run twice.
        effects=Effects.EXTERNAL,
        accelerator=accelerator,
        gpu_model=model,
        env_profile=profile.name,
        profile_digest=build.digest,
        input_schema={},
        output_schema={},
        error_codes=(),
        required_capabilities=(),
        timeout_sec=profile.limits.wall_sec,
        memory_bytes=profile.limits.memory_bytes,
        limits=asdict(profile.limits),
        tier=tier,
    )


# Failures that the worker itself tells of a shipped capability.
SHIPPED_CODES = ("invalid_args", "no_answer", "bad_answer")


def shipped_offers(
    builds: Sequence[ProfileBuild], shipped: Sequence[ShippedCapability], tier: str | None = None
) -> tuple[ShippedOffer, ...]:
    """Turn what comes with Crank into offers, each where its profile is built.

    tier  how well their jobs are walled in here
    """
    by_profile = {build.name: build for build in builds if build.accelerator == Accelerator.CPU}
    return tuple(
        _shipped_offer(each, by_profile[each.profile], tier) for each in shipped if each.profile in by_profile
    )


def _shipped_offer(shipped: ShippedCapability, build: ProfileBuild, tier: str | None) -> ShippedOffer:
    capability = replace(
        _capability(build, Accelerator.CPU, None, tier),
        name=shipped.name,
        version=shipped.version,
        summary=shipped.summary,
        effects=shipped.effects,
        # Its own code runs there, not the caller's.
        env_profile=None,
        input_schema=shipped.input_schema,
        output_schema=shipped.output_schema,
        error_codes=(*shipped.error_codes, *SHIPPED_CODES),
        takes_files=True,
    )
    marks = f"{shipped.version} {shipped.code_sha256} {build.digest}"
    return ShippedOffer(capability, build, shipped.code, marks)


def find_offer(offers: Sequence[Offer], lease: Lease | Open) -> Offer | None:
    """Return the newest offer that a lease or a session means, or None."""
    able = [
        offer
        for offer in offers
        if offer.capability.name == lease.capability and str(offer.capability.accelerator) == lease.accelerator
    ]
    return max(able, key=lambda offer: [int(part) for part in offer.capability.version.split(".")], default=None)


def unfit(offer: Offer, lease: Lease) -> tuple[str, str] | None:
    """Return why a lease asks for what this kind of offer does not take, as a code and a sentence, or None."""
    if lease.handles and not (isinstance(offer, ScriptOffer) and lease.code is not None):
        return "no_handles", "Only a script can use handles."
    wants_more = lease.files or lease.mounts or lease.code is not None or lease.program is not None
    if isinstance(offer, FunctionOffer) and (wants_more or lease.session_id is not None):
        return "args_only", f"{lease.capability} is a function: it takes args, and nothing else."
    brings_code = lease.code is not None or lease.program is not None or lease.session_id is not None
    if isinstance(offer, ShippedOffer) and brings_code:
        return "args_only", f"{lease.capability} takes args, files and mounts, and nothing else."
    return None


def lowered(limits: Limits, lease: Lease) -> Limits:
    """Return the profile's limits with what the lease asks for.

    Time and memory are only ever lowered; CPU time follows a lowered wall clock unless the request names it
    too. Kept output may be raised: it costs the node, not the sandbox, and the node bounds it when it
    accepts the request.
    """
    cpu_ratio = limits.cpu_sec / limits.wall_sec
    wall_sec = _lower("wall_sec", limits.wall_sec, lease.timeout_sec)
    follows_sec = min(limits.cpu_sec, max(wall_sec * cpu_ratio, LIMIT_RANGES["cpu_sec"][0]))
    return replace(
        limits,
        wall_sec=wall_sec,
        cpu_sec=follows_sec if lease.cpu_sec is None else _lower("cpu_sec", limits.cpu_sec, lease.cpu_sec),
        idle_sec=_lower("idle_sec", limits.idle_sec, lease.idle_sec),
        no_output_sec=_lower("no_output_sec", limits.no_output_sec, lease.no_output_sec),
        output_bytes=lease.max_output_bytes or limits.output_bytes,
        memory_bytes=int(_lower("memory_bytes", limits.memory_bytes, lease.memory_bytes)),
    )


def _lower(name: str, ceiling: float, wanted: float | None) -> float:
    if wanted is None:
        return ceiling
    return min(ceiling, max(wanted, LIMIT_RANGES[name][0]))
