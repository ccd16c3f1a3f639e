"""What this machine gives a sandbox, found by trying. For `crank doctor`, and for people who read a refusal."""

import asyncio
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crank.domain.isolation import Tier
from crank.errors import SandboxError
from crank.ports import ProfileBuild
from crank.sandbox import landlock, layers, namespaces, trial
from crank.sandbox.link import LauncherLink, launch, rehearse
from crank.sandbox.tiers import strongest

State = Literal["ok", "warn", "fail"]
OK: State = "ok"
WARN: State = "warn"
FAIL: State = "fail"

_KERNEL_NEEDED = (5, 12)
_LANDLOCK_TCP, _LANDLOCK_SCOPES = 4, 6


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about this machine.

    status  `ok`, `warn` (a weaker way is used) or `fail` (no sandbox)
    text    what was found, one sentence
    fix     what to do about it, empty when there is nothing to do
    """

    name: str
    status: State
    text: str
    fix: str = ""


def kernel_finding(release: str) -> Finding:
    """Judge a kernel by its release text."""
    found = re.match(r"(\d+)\.(\d+)", release)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < _KERNEL_NEEDED:
        return Finding("kernel", FAIL, f"Linux {release} is too old for the sandbox.", "Use Linux 5.12 or newer.")
    return Finding("kernel", OK, f"Linux {release}.")


def landlock_finding(version: int) -> Finding:
    """Judge a version of Landlock, 0 for none."""
    if version == 0:
        return Finding(
            "landlock", WARN, "There is no Landlock; files are guarded by mounts alone.", layers.FIXES["landlock"]
        )
    missing = [
        name
        for name, since in (("TCP", _LANDLOCK_TCP), ("abstract sockets and signals", _LANDLOCK_SCOPES))
        if version < since
    ]
    if missing:
        text = f"Landlock version {version}: guards files, but not {' and '.join(missing)}."
        return Finding("landlock", OK, f"{text} The filter and the empty network guard those.")
    return Finding("landlock", OK, f"Landlock version {version}.")


def seccomp_finding(actions: Path = Path("/proc/sys/kernel/seccomp/actions_avail")) -> Finding:
    """Tell whether system calls can be filtered."""
    if not actions.exists():
        return Finding("seccomp", FAIL, "System calls cannot be filtered.", layers.FIXES["seccomp"])
    return Finding("seccomp", OK, "System calls can be filtered.")


def cgroup_finding(flavour: str | None) -> Finding:
    """Judge what control groups the launcher found usable."""
    if flavour is None:
        return Finding(
            "cgroup",
            WARN,
            "No control group is usable; memory and processes are watched from outside and by per-process limits.",
            "Start the worker under systemd with 'Delegate=memory pids cpu' ('systemd-run --user --scope "
            "-p Delegate=yes crank up'), or as root.",
        )
    return Finding("cgroup", OK, f"Control groups {flavour} count and limit every job.")


def account_finding(*, privileged: bool, uid: int) -> Finding:
    """Say as whom jobs run on the host."""
    if privileged:
        return Finding("account", OK, "Started with privilege: every job runs as an own unprivileged user id.")
    if uid == 0:
        return Finding(
            "account",
            FAIL,
            "Started as root without its capabilities: jobs would run as the host's root.",
            layers.FIXES["capabilities"],
        )
    return Finding("account", OK, "Rootless: jobs run as the worker's own user, mapped to another inside.")


def examine(lowest: Tier, build: ProfileBuild | None) -> list[Finding]:
    """Try everything and report. Blocking, some seconds; starts and ends launchers. Never raises SandboxError.

    lowest  the weakest tier that the operator allows
    build   a profile to try the walls from inside with; None where none is built
    """
    findings = [kernel_finding(platform.release()), seccomp_finding(), landlock_finding(landlock.abi())]
    findings.append(account_finding(privileged=namespaces.is_privileged(), uid=os.geteuid()))
    link, tier = _standing(lowest)
    findings.append(tier)
    if link is None:
        return findings
    findings.append(cgroup_finding(link.cgroup))
    try:
        return [*findings, *_inside(link, build)]
    finally:
        link.close()


def _standing(lowest: Tier) -> tuple[LauncherLink | None, Finding]:
    """Return a launcher of the strongest tier that stands here, and what to say of it."""
    link = None
    try:
        link = launch()
        rehearse(link)
    except SandboxError as fault:
        if link is not None:
            link.close()
        return _weaker(lowest, fault)
    text = "Tier 'namespaces': its walls stand; every job tries them again from inside."
    return link, Finding("sandbox", OK, text)


def _weaker(lowest: Tier, missing: SandboxError) -> tuple[LauncherLink | None, Finding]:
    try:
        link = strongest(lowest)
    except SandboxError as fault:
        return None, Finding("sandbox", FAIL, fault.message, fault.fix)
    text = f"Tier '{link.tier}', the weaker one: {missing.message}"
    return link, Finding("sandbox", WARN, text, f"{missing.fix} {machine_fix()}".strip())


def machine_fix(
    version: Path = Path("/proc/version"),
    container: Path = Path("/.dockerenv"),
    sysctls: Path = Path("/proc/sys/kernel"),
) -> str:
    """Return what to type on this kind of machine when user namespaces are refused, empty where it is no special one."""
    restricted = sysctls / "apparmor_restrict_unprivileged_userns"
    if container.exists():
        return (
            "This is a container: start it with 'docker run --security-opt seccomp=unconfined "
            "--security-opt apparmor=unconfined --security-opt systempaths=unconfined'."
        )
    if "microsoft" in _text(version).lower():
        return (
            "This is WSL: 'wsl --update' and 'wsl --shutdown' in Windows give it a kernel with user namespaces (WSL 2)."
        )
    if _text(restricted).strip() == "1":
        return f"AppArmor forbids it here: 'sudo sysctl -w kernel.{restricted.name}=0', and keep it in /etc/sysctl.d."
    return ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _inside(link: LauncherLink, build: ProfileBuild | None) -> list[Finding]:
    """Break every wall from inside, where there is a profile to do it with."""
    if build is None:
        text = "Not tried from inside: no profile is built."
        return [Finding("walls", WARN, text, "Build one: 'crank profile build python-core', then run this again.")]
    try:
        tried = asyncio.run(trial.try_walls(link, build))
    except (SandboxError, TimeoutError) as fault:
        message = getattr(fault, "message", f"It took longer than {trial.TRIAL_SEC:g} s.")
        return [Finding("walls", FAIL, f"They could not be tried from inside. {message}", getattr(fault, "fix", ""))]
    findings = []
    for each in tried:
        if each.broken:
            findings += [Finding(f"try {each.name}", FAIL, f"Does not hold: {text}.", each.fix) for text in each.broken]
        else:
            findings.append(Finding(f"try {each.name}", OK, f"{each.text}."))
    return findings
