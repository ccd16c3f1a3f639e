"""Makes the neighbours' environment: locked, by hash, apart from Crank's own.

One neighbour that cannot be had must not take the others along: when all together fail, each is installed by
itself, and what failed is kept in `failed.json` for the report.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

LOCK = Path(__file__).with_name("requirements.txt")


def _pip(python: Path, *arguments: str) -> str | None:
    """Install; return why not, or None."""
    command = [
        str(python),
        "-m",
        "pip",
        "install",
        "-qq",
        "--disable-pip-version-check",
        "--require-hashes",
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr.strip()[-500:]


def blocks(lock: str) -> dict[str, str]:
    """Return the lock's entries by name, each with its hashes."""
    found: dict[str, str] = {}
    name = ""
    for line in lock.splitlines(keepends=True):
        if line[:1].isalnum():
            name = line.partition("==")[0]
            found[name] = found.get(name, "") + line
        elif line.lstrip().startswith("--hash"):
            found[name] += line
    return found


def install(folder: Path) -> dict[str, str]:
    """Make the environment in `folder` if the lock changed; return what failed, by name."""
    failures = folder / "failed.json"
    lock = LOCK.read_text("utf-8")
    done = folder / "requirements.txt"
    if done.exists() and done.read_text("utf-8") == lock:
        return dict(json.loads(failures.read_text("utf-8")))
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    python = folder / "bin" / "python"
    failed: dict[str, str] = {}
    if _pip(python, "-r", str(LOCK)) is not None:
        for name, block in blocks(lock).items():
            with tempfile.NamedTemporaryFile("w", suffix=".txt") as one:
                one.write(block)
                one.flush()
                why = _pip(python, "--no-deps", "-r", one.name)
            if why is not None:
                failed[name] = why
    failures.write_text(json.dumps(failed, indent=2) + "\n", "utf-8")
    done.write_text(lock, "utf-8")
    return failed


def main() -> None:
    """Install, and say what failed."""
    parser = argparse.ArgumentParser(description="Install what Crank is measured beside.")
    parser.add_argument("folder", type=Path)
    for name, why in install(parser.parse_args().folder).items():
        print(f"bench: {name} could not be installed: {why}", file=sys.stderr)


if __name__ == "__main__":
    main()
