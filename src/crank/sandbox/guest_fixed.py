"""Inside the sandbox: what stands in for installers where packages and programs are fixed: an explanation."""

from __future__ import annotations

import re

_INSTALL = re.compile(r"^\s*(?:sudo\s+)?(?:(?:python3?|/\S*python3?)\s+-m\s+)?(?:uv\s+)?pip3?\s+(.*)$", re.DOTALL)
_INSTALLERS = re.compile(r"^\s*(?:sudo\s+)?(?:apt|apt-get|conda|mamba|npm|yum|apk)\b")


def packages() -> dict[str, str]:
    """Return name to version of what is there."""
    from importlib import metadata

    return {str(each.metadata["Name"]).lower().replace("_", "-"): each.version for each in metadata.distributions()}


def pip(words: str) -> str:
    """Return what is said in place of pip's own words: packages are fixed, and which there are."""
    parts = words.split()
    verb = parts[0] if parts else ""
    there = packages()
    if verb in ("list", "freeze"):
        return "\n".join(f"{name}=={version}" for name, version in sorted(there.items()))
    wanted = [re.split(r"[=<>!~\[; ]", part)[0].lower().replace("_", "-") for part in parts[1:] if part[0] != "-"]
    missing = [name for name in wanted if name and name not in there]
    if verb == "install" and wanted and not missing:
        return "\n".join(f"Requirement already satisfied: {name} ({there[name]})" for name in wanted if name)
    if verb == "show":
        return "\n".join(f"Name: {name}\nVersion: {there[name]}" for name in wanted if name in there)
    what = f"Not installed: {', '.join(missing)}. " if missing else ""
    return (
        f"{what}There is no pip here: this sandbox has no network, and its packages are fixed.\n"
        f"Installed: {', '.join(f'{name} {version}' for name, version in sorted(there.items()))}"
    )


def instead(command: str) -> str | None:
    """Return what is said in place of a command that installs something, or None."""
    asked = _INSTALL.match(command)
    if asked:
        return pip(asked[1]) + "\n"
    if _INSTALLERS.match(command):
        return "Nothing can be installed here: this sandbox has no network, and its programs and packages are fixed.\n"
    return None
