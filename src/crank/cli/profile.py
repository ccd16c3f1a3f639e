"""`crank profile …`: the environments that jobs run in. No node is needed for any of it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import Parameter

from crank.bootstrap.node import node_info, renew_worker
from crank.bootstrap.profiles import FIRST_PROFILES, Profiles, check_profile
from crank.cli.exit_codes import ExitCode
from crank.cli.reach import ask
from crank.cli.show import print_json, print_rows, say
from crank.client import AsyncClient
from crank.config import Settings, load
from crank.domain.profile import SelfTest
from crank.errors import NotFound, ProfileError, Unavailable

_LOOK_AGAIN_SEC = 0.2
# Beyond the time that its jobs get: what a worker needs to start.
_START_SEC = 30.0

Json = Annotated[bool, Parameter(help="Print JSON.", negative=(), show_default=False)]
Name = Annotated[str, Parameter(name="names", help="Names of profiles.")]


def list_profiles(*, json: Json = False) -> int:
    """List the profiles and whether they are built here."""
    profiles = Profiles(load())
    found: list[dict[str, Any]] = []
    for name in profiles.names():
        profile, build = profiles.load(name), profiles.find(name)
        found.append(
            {
                "name": name,
                "capability": profile.capability,
                "version": profile.version,
                "accelerator": profiles.variant(name),
                "built": build is not None,
                "digest": None if build is None else build.digest,
                "summary": profile.summary,
                "limits": asdict(profile.limits),
                "lowered": dict(profiles.lowered(name)),
            }
        )
    if json:
        print_json({"profiles": found})
    else:
        rows = [
            (each["name"], each["version"], each["accelerator"], "yes" if each["built"] else "no", each["summary"])
            for each in found
        ]
        print_rows(("PROFILE", "VERSION", "FOR", "BUILT", "SUMMARY"), rows)
        for each in found:
            for limit, own in each["lowered"].items():
                say(f"{each['name']}: {limit} is {each['limits'][limit]:.12g} here; the profile itself has {own:.12g}")
    return ExitCode.OK


def build(*names: Name, json: Json = False) -> int:
    """Build profiles on this machine; without names, those that a node starts with.

    A running node offers them when this returns: its worker starts anew after its jobs.
    """
    settings = load()
    profiles = Profiles(settings)
    built = []
    fresh = False
    for name in names or FIRST_PROFILES:
        present = profiles.find(name) is not None
        fresh = fresh or not present
        say(f"{name}: {'is built' if present else 'building'}")
        found = profiles.build(name, lambda line: say(f"  {line}"))
        built.append({"name": name, "accelerator": found.accelerator, "digest": found.digest, "new": not present})
    if fresh:
        _offer(settings)
    if json:
        print_json({"profiles": built})
    return ExitCode.OK


def _offer(settings: Settings) -> None:
    """Have the running node's worker start anew, if there is one, and wait until it is back."""
    try:
        own = f"{settings.worker_name}-{node_info(settings)['node_id']}"
    except NotFound:
        return

    async def instance(client: AsyncClient) -> str | None:
        workers = (await client.workers())["workers"]
        return next((each["instance_id"] for each in workers if each["worker_id"] == own and each["connected"]), None)

    async def renewing(client: AsyncClient) -> bool:
        before = await instance(client)
        if renew_worker(settings):
            say("the running node's worker starts anew to offer it")
        return await until_changed(before, lambda: instance(client), limit_sec=settings.drain_sec + _START_SEC)

    if not ask(renewing):
        say("it still finishes what it runs; 'crank worker list' shows when it is back")


async def until_changed(before: str | None, look: Callable[[], Awaitable[str | None]], *, limit_sec: float) -> bool:
    """Wait until `look` finds something else than before, and not nothing; tell whether it did in time."""
    until = time.monotonic() + limit_sec
    while time.monotonic() < until:
        try:
            found = await look()
        except Unavailable:
            found = None
        if found not in (None, before):
            return True
        await asyncio.sleep(_LOOK_AGAIN_SEC)
    return False


def check(*names: Name, json: Json = False) -> int:
    """Prove what profiles promise, in the sandbox; without names, every profile that is built."""
    settings = load()
    results: list[dict[str, Any]] = []
    failed = 0
    profiles = Profiles(settings)
    for name in names or [each for each in profiles.names() if profiles.find(each) is not None]:
        failed += asyncio.run(_check(settings, name, results, talk=not json))
    if not results:
        raise ProfileError("No profile is built here.", code="profile_not_built", fix="Run 'crank profile build'.")
    if json:
        print_json({"ok": not failed, "checks": results})
    else:
        say(f"{len(results) - failed} of {len(results)} promises hold")
    return ExitCode.JOB_FAILED if failed else ExitCode.OK


async def _check(settings: Settings, name: str, results: list[dict[str, Any]], *, talk: bool) -> int:
    found = Profiles(settings).find(name)
    if found is None:
        raise ProfileError(
            f"The profile {name} is not built here.", code="profile_not_built", fix=f"Run 'crank profile build {name}'."
        )

    def report(test: SelfTest, wrong: str | None) -> None:
        results.append({"profile": name, "promise": test.name, "ok": wrong is None, "cause": wrong})
        if talk:
            print(f"{'pass' if wrong is None else 'FAIL'}  {name}: {test.name}" + (f" - {wrong}" if wrong else ""))

    return await check_profile(found, report, settings.sandbox_tier)
