"""What `crank doctor` looks at: each finding says how it stands, why it matters and how to mend it."""

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from crank.adapters.clock import EARLIEST_US, SystemClock
from crank.adapters.nvml import NvmlProbe
from crank.bootstrap.confinement import try_confinement
from crank.bootstrap.examine_identity import identities
from crank.bootstrap.examine_public import own_certificate
from crank.bootstrap.files import is_locked
from crank.bootstrap.finding import Finding, State
from crank.bootstrap.node import client_options, node_info
from crank.bootstrap.profiles import FIRST_PROFILES, Profiles
from crank.client import AsyncClient
from crank.config import Settings
from crank.domain.quantity import GIB
from crank.errors import CrankError
from crank.ports import ProfileBuild
from crank.sandbox import host

DISK_LOW_BYTES = 2 * GIB
DISK_EMPTY_BYTES = GIB // 4


def examine(settings: Settings) -> Sequence[Finding]:
    """Look at this machine and its node; never changes anything."""
    looks: tuple[Callable[[Settings], Sequence[Finding]], ...] = (
        _python, _sandbox, _confinement, _home, _disk, _clock, _ports, _profiles, _gpu, identities, own_certificate, _node,
    )  # fmt: skip
    return tuple(finding for look in looks for finding in look(settings))


def _python(settings: Settings) -> Sequence[Finding]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info[:2] == (3, 11):
        return [Finding("python", "ok", f"Python {version}")]
    return [Finding("python", "warn", f"Python {version}; jobs are promised 3.11", "Run Crank with Python 3.11.")]


def _sandbox(settings: Settings) -> Sequence[Finding]:
    found = host.examine(settings.sandbox_tier, _some_build(settings))
    return [Finding(each.name, each.status, each.text, each.fix) for each in found]


def _some_build(settings: Settings) -> ProfileBuild | None:
    """Return a built profile to try the sandbox with, the smallest first; None where none is built."""
    try:
        built = Profiles(settings, devices=()).built()
    except CrankError:
        # What is wrong with the profiles is told as theirs.
        return None
    return min(built, key=lambda build: (build.profile.name not in FIRST_PROFILES, build.profile.name), default=None)


def _confinement(settings: Settings) -> Sequence[Finding]:
    try:
        layers = try_confinement(settings)
    except CrankError as fault:
        return [Finding("worker confinement", "fail", fault.message, fault.fix)]
    held = ", ".join(layer.name for layer in layers if layer.holds)
    findings = [Finding("worker confinement", "ok", f"tried from inside, and held: {held}")]
    for layer in layers:
        if not layer.holds:
            # An ordinary user cannot have another account; that is how rootless works.
            state: State = "ok" if layer.name == "account" else "warn"
            findings.append(Finding(f"worker confinement, {layer.name}", state, layer.text, layer.fix))
    return findings


def _home(settings: Settings) -> Sequence[Finding]:
    home = settings.home
    if not home.exists():
        return [Finding("home", "ok", f"{home} is made at the first start")]
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        return [Finding("home", "fail", f"{home} is not usable for this user", "Give it to this user: chown -R.")]
    if home.stat().st_mode & 0o022:
        return [Finding("home", "warn", f"others may write to {home}", f"chmod go-w {home}")]
    return [Finding("home", "ok", str(home))]


def _disk(settings: Settings) -> Sequence[Finding]:
    place = settings.home
    while not place.exists():
        place = place.parent
    free_bytes = shutil.disk_usage(place).free
    text = f"{free_bytes / GIB:.1f} GiB free at {place}"
    if free_bytes < DISK_EMPTY_BYTES:
        return [Finding("disk", "fail", text, "Free some space, or move CRANK_HOME; jobs will be refused.")]
    if free_bytes < DISK_LOW_BYTES:
        return [Finding("disk", "warn", text, "Free some space before you build profiles.")]
    return [Finding("disk", "ok", text)]


def _clock(settings: Settings) -> Sequence[Finding]:
    if SystemClock().now_us() < EARLIEST_US:
        return [Finding("clock", "fail", "the clock is years behind", "Set it: timedatectl set-ntp true")]
    return [Finding("clock", "ok", datetime.fromtimestamp(SystemClock().now_us() / 1e6, UTC).isoformat("T", "seconds"))]


def _ports(settings: Settings) -> Sequence[Finding]:
    if is_locked(settings):
        return []
    findings = []
    for name in ("api_port", "workers_port"):
        port = getattr(settings, name)
        if port == 0:
            continue
        with socket.socket() as trying:
            trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trying.bind((settings.bind, port))
            except OSError as fault:
                fix = f"Stop what holds it, or set CRANK_{name.upper()} (0 takes any free port)."
                findings.append(Finding(name, "fail", f"port {port} cannot be used: {fault.strerror}", fix))
            else:
                findings.append(Finding(name, "ok", f"port {port} is free"))
    return findings


def _profiles(settings: Settings) -> Sequence[Finding]:
    try:
        profiles = Profiles(settings)
        names = profiles.names()
        built = {name: profiles.find(name) is not None for name in names}
    except CrankError as fault:
        return [Finding("profiles", "fail", fault.message, fault.fix)]
    findings = []
    for name in names:
        if built[name]:
            findings.append(Finding(f"profile {name}", "ok", "built"))
        else:
            first = name in FIRST_PROFILES
            cause = "not built; 'crank up' builds it" if first else "not built; jobs that ask for it are refused"
            fix = f"crank profile build {name}"
            findings.append(Finding(f"profile {name}", "warn" if first else "ok", cause, fix))
    return findings


def _gpu(settings: Settings) -> Sequence[Finding]:
    devices = NvmlProbe().devices()
    names = ", ".join(f"{device.model} ({device.memory_bytes / GIB:.0f} GiB)" for device in devices)
    return [Finding("gpu", "ok", names or "none; jobs that ask for one are refused")]


def _node(settings: Settings) -> Sequence[Finding]:
    async def ask() -> str:
        document = node_info(settings)
        async with AsyncClient(client_options(document, retry_sec=0.0)) as client:
            workers = (await client.workers())["workers"]
        connected = sum(bool(each["connected"]) for each in workers)
        return f"running at {document['api']}, {connected} worker(s) connected"

    if not is_locked(settings):
        return [Finding("node", "ok", "not running; start it with 'crank up'")]
    try:
        return [Finding("node", "ok", asyncio.run(ask()))]
    except CrankError as fault:
        return [Finding("node", "fail", fault.message, fault.fix)]
