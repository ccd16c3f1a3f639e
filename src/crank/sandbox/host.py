"""What this machine gives a sandbox, found by trying. For `crank doctor`, and for people who read a refusal."""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from crank.errors import SandboxError
from crank.sandbox import landlock, layers, namespaces
from crank.sandbox.link import LauncherLink, launch, rehearse

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


def examine() -> list[Finding]:
    """Try everything and report. Blocking, about a second; starts and ends a launcher. Never raises SandboxError."""
    findings = [kernel_finding(platform.release()), seccomp_finding(), landlock_finding(landlock.abi())]
    findings.append(account_finding(privileged=namespaces.is_privileged(), uid=os.geteuid()))
    try:
        link = launch()
    except SandboxError as fault:
        return [*findings, Finding("sandbox", FAIL, fault.message, fault.fix or "")]
    try:
        findings.append(cgroup_finding(link.cgroup))
        findings.append(_rehearsal(link))
    finally:
        link.close()
    return findings


def _rehearsal(link: LauncherLink) -> Finding:
    try:
        rehearse(link)
    except SandboxError as fault:
        return Finding("sandbox", FAIL, fault.message, fault.fix or "")
    return Finding("sandbox", OK, "Namespaces, mounts and identity stand; every job tries them again from inside.")
