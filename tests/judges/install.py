"""Makes the environments of foreign judges: real clients, each locked by hash, apart from Crank's own and each other.

A judge is a folder beside this file. It holds what is locked, and its programs:

    requirements.in   what is wanted          requirements.txt   what is installed, with hashes (Python)
    package.json      what is wanted          package-lock.json  what is installed, with hashes (Node)

`interpreter("name")` builds `.cache/judges/<name>-<digest of the locks>` once, whoever asks first, and returns the
program that runs the judge's programs: its `bin/python`, or for a Node judge `bin/node`, which finds the judge's
packages by `require` (so its programs end in .cjs). `tools/lock.sh` resolves every lock anew.
"""

import argparse
import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

JUDGES = Path(__file__).resolve().parent
CACHE = JUDGES.parents[1] / ".cache" / "judges"
INSTALL_SEC_MAX = 900
_LOCKS = ("requirements.txt", "package.json", "package-lock.json")
_READY = ".ready"


def names() -> list[str]:
    """Return every judge's name."""
    return sorted(folder.name for folder in JUDGES.iterdir() if _locks(folder))


def _locks(folder: Path) -> list[Path]:
    return [folder / name for name in _LOCKS if (folder / name).is_file()]


def place(name: str) -> Path:
    """Return where a judge is built; another lock or another Python is another place. Raises ValueError."""
    locks = _locks(JUDGES / name)
    if not locks:
        raise ValueError(f"There is no judge {name!r}; there are {', '.join(names())}.")
    digest = hashlib.sha256(sys.version.encode())
    for lock in locks:
        digest.update(lock.name.encode() + b"\0" + lock.read_bytes() + b"\0")
    return CACHE / f"{name}-{digest.hexdigest()[:16]}"


def interpreter(name: str) -> Path:
    """Return the program that runs this judge's programs, after building its environment if nobody did."""
    built = place(name)
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as gate:
        # Several test processes may want one judge at the same moment; the others wait for the first.
        fcntl.flock(gate, fcntl.LOCK_EX)
        if not (built / _READY).exists():
            shutil.rmtree(built, ignore_errors=True)
            _build(JUDGES / name, built)
            (built / _READY).touch()
    node = built / "bin" / "node"
    return node if node.exists() else built / "bin" / "python"


def _build(judge: Path, built: Path) -> None:
    print(f"judges: building {judge.name}", file=sys.stderr)
    if (judge / "requirements.txt").is_file():
        _run(sys.executable, "-m", "venv", "--without-pip", str(built))
        # Our pip fills it: a judge needs none, and this Python may have no ensurepip.
        python = str(built / "bin" / "python")
        pip = (sys.executable, "-m", "pip", "--python", python, "install", "-qq", "--disable-pip-version-check")
        # What a program imports is compiled when it does; most of what is installed never is.
        _run(*pip, "--no-warn-script-location", "--no-compile", "--require-hashes", "-r", str(judge / "requirements.txt"))
    if (judge / "package-lock.json").is_file():
        (built / "bin").mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(judge / name, built / name)
        _run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", inside=built)
        starter = built / "bin" / "node"
        starter.write_text(f'#!/bin/sh\nNODE_PATH="{built}/node_modules" exec node "$@"\n', "utf-8")
        starter.chmod(0o755)


def _run(*command: str, inside: Path | None = None) -> None:
    done = subprocess.run(
        command, cwd=inside, capture_output=True, text=True, timeout=INSTALL_SEC_MAX, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {(done.stderr or done.stdout)[-2000:]}")


def _sweep() -> None:
    """Remove what earlier locks built."""
    wanted = {place(name) for name in names()}
    for folder in CACHE.iterdir():
        if folder.is_dir() and folder not in wanted:
            shutil.rmtree(folder)


def main() -> None:
    """Build every judge, or the named ones."""
    parser = argparse.ArgumentParser(description="Build the environments of foreign judges.")
    parser.add_argument("names", nargs="*", default=names())
    for name in parser.parse_args().names:
        interpreter(name)
    _sweep()


if __name__ == "__main__":
    main()
