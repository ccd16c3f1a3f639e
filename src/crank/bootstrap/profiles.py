"""The environment profiles of this machine: what there is, what is built, what is proven."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from crank.adapters.clock import SystemClock
from crank.adapters.nvml import NvmlProbe
from crank.adapters.profile_store import ProfileStore, read_shipped
from crank.config import Settings, interpreter
from crank.domain.isolation import TIER_DEFAULT, Tier
from crank.domain.outcome import Outcome, Reason
from crank.domain.profile import Profile, SelfTest, under
from crank.domain.worker import GpuDevice
from crank.errors import ProfileError
from crank.ports import ProfileBuild, SandboxSpec, ShippedCapability
from crank.sandbox.tiers import RUNNERS, strongest
from crank.worker.offers import choose_variant

# Built at the first start. python-ml weighs gigabytes and is built when somebody asks for it.
FIRST_PROFILES = ("python-core", "python-docs")
# What sandboxes of E2B's clients are made of.
E2B_PROFILE = "python-interpreter"
# A self test that passes does so in seconds; this only ends one that hangs.
Say = Callable[[str], None]


class Profiles:
    """The profiles of one machine and the variant (cpu or gpu) that fits it. Every method blocks.

    Every profile and build comes with the operator's ceilings applied to its limits, so that nobody sees
    or gives more than they allow.
    """

    def __init__(self, settings: Settings, devices: Sequence[GpuDevice] | None = None) -> None:
        """Take the settings, and this machine's GPUs where the caller has looked already."""
        self._store = ProfileStore(
            settings.profiles_source,
            settings.profiles_builds,
            settings.build_environment,
            Path(interpreter()),
            SystemClock(),
        )
        self._source_dir = settings.profiles_source
        self._devices = NvmlProbe().devices() if devices is None else devices
        self._ceilings = settings.ceilings

    def names(self) -> tuple[str, ...]:
        """Return the names of every profile that there is."""
        return self._store.names()

    def load(self, name: str) -> Profile:
        """Read a profile. Raises NotFound, ProfileError."""
        return self._under(self._store.load(name))

    def lowered(self, name: str) -> Mapping[str, float]:
        """Return what the profile itself says of each limit that the operator lowered."""
        own, here = asdict(self._store.load(name).limits), asdict(self.load(name).limits)
        return {limit: value for limit, value in own.items() if value != here[limit]}

    def _under(self, profile: Profile) -> Profile:
        return replace(profile, limits=under(profile.limits, self._ceilings))

    def variant(self, name: str) -> str:
        """Return which variant fits this machine: `gpu` or `cpu`."""
        return choose_variant(self.load(name), self._devices)

    def find(self, name: str) -> ProfileBuild | None:
        """Return the build of a profile that can be used now, or None."""
        build = self._store.find(name, self.variant(name))
        return None if build is None else replace(build, profile=self._under(build.profile))

    def build(self, name: str, say: Say) -> ProfileBuild:
        """Build a profile, or return the build that is there. Raises NotFound, ProfileError."""
        build = self._store.build(name, self.variant(name), say)
        return replace(build, profile=self._under(build.profile))

    def built(self) -> tuple[ProfileBuild, ...]:
        """Return every build that can be used now."""
        found = (self.find(name) for name in self.names())
        return tuple(build for build in found if build is not None)

    def shipped(self) -> tuple[ShippedCapability, ...]:
        """Return the capabilities that come with Crank, whether or not their profile is built. Raises ProfileError."""
        return read_shipped(self._source_dir)

    def build_first(self, say: Say, *, e2b: bool = False) -> None:
        """Build what a node offers from its first start on, where it is absent. Raises ProfileError."""
        for name in (*FIRST_PROFILES, *([E2B_PROFILE] if e2b else ())):
            if self.find(name) is None:
                say(f"building the profile {name} (once on this machine)")
                self.build(name, lambda line: say(f"  {line}"))


class _Silent:
    """Takes the output of a self test; the outcome keeps it anyway."""

    def output(self, stream: str, text: str, offset_bytes: int, at_sec: float) -> None:
        """Drop it."""

    def progress(self, fraction: float | None, message: str) -> None:
        """Drop it."""


async def check_profile(
    build: ProfileBuild, report: Callable[[SelfTest, str | None], None], lowest: Tier = TIER_DEFAULT
) -> int:
    """Run a profile's self tests in the sandbox and return how many failed.

    report  called after each test with what was wrong, or None
    lowest  the weakest tier that the operator allows
    Raises SandboxError when the sandbox cannot be built here, ProfileError for a profile without tests.
    """
    tests = build.profile.self_tests
    if not tests:
        raise ProfileError(f"The profile {build.profile.name} promises nothing that can be checked.")
    link = await asyncio.to_thread(strongest, lowest)
    runner = RUNNERS[link.tier](link)
    failed = 0
    try:
        await runner.start()
        for test in tests:
            session = await runner.open(SandboxSpec(build=build, limits=build.profile.limits))
            try:
                wrong = _verdict(test, await session.run_python(test.code, None, _Silent()))
            finally:
                await session.close()
            failed += wrong is not None
            report(test, wrong)
    finally:
        await runner.stop()
    return failed


def _verdict(test: SelfTest, outcome: Outcome) -> str | None:
    end = outcome.end
    if test.expect == "ok":
        if end.reason is Reason.EXITED and end.exit_code == 0:
            return None
        return f"it ended {end.reason}: {_last_line(outcome) or end.message or ''}"
    # The exception's own name stands at the start of the last line of its traceback.
    name = _last_line(outcome).partition(":")[0].rpartition(".")[2].strip()
    if end.reason is Reason.RAISED and name == test.expect:
        return None
    return f"expected {test.expect}, but it ended {end.reason}: {_last_line(outcome)}"


def _last_line(outcome: Outcome) -> str:
    lines: Iterable[str] = outcome.stderr.text.strip().splitlines()
    return (list(lines) or [""])[-1]
