"""The demo of `make demo`: a real node, a folder of documents, and a job that converts them.

It does by program what the README tells a person to do by hand: build the profiles, start a node of
its own, send the script `convert_folder.py` over the API, fetch what it left, stop the node.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parent
EXTRACT_LINES = 24


def say(text: str) -> None:
    """Tell a person what happens."""
    print(f"demo: {text}", flush=True)


def crank(*argv: str, environment: dict[str, str]) -> None:
    """Run one command and show it as a user would type it. Ends the demo when it fails."""
    print(f"$ crank {' '.join(argv)}", flush=True)
    subprocess.run([Path(sys.executable).with_name("crank"), *argv], env=environment, cwd=REPO, check=True)


def show_extract(folder: Path) -> None:
    """List what the job left and print the beginning of its table of contents."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise SystemExit(f"demo: the job left nothing in {folder}")
    say(f"{len(files)} artifacts are in {folder.relative_to(REPO)}/")
    contents = next(
        (path for name in ("toc.md", "contents.md", "index.md") for path in files if path.name == name), None
    )
    chosen = contents or next((path for path in files if path.suffix == ".md"), files[0])
    say(f"the beginning of {chosen.relative_to(REPO)}:")
    for line in chosen.read_text("utf-8", errors="replace").splitlines()[:EXTRACT_LINES]:
        print(f"    {line}")


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--home", type=Path, required=True, help="folder for the state of the demo's node")
    parser.add_argument("--builds", type=Path, required=True, help="folder of built profiles")
    options = parser.parse_args()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CRANK_")}
    environment = {
        **inherited,
        "CRANK_HOME": str(options.home),
        "CRANK_PROFILES_BUILDS": str(options.builds),
        # Free ports: the demo does not disturb a node of yours.
        "CRANK_API_PORT": "0",
        "CRANK_WORKERS_PORT": "0",
    }
    documents = HERE / "documents"
    results = REPO / "results" / "demo"
    began_sec = time.monotonic()

    subprocess.run([sys.executable, HERE / "make_documents.py", documents], cwd=REPO, check=True)
    crank("profile", "build", "python-core", "python-docs", environment=environment)
    crank("up", "--detach", environment=environment)
    try:
        crank(
            "run",
            str((HERE / "convert_folder.py").relative_to(REPO)),
            "--profile", "python-docs",
            "--mount", f"docs={documents.relative_to(REPO)}",
            "--out", str(results.relative_to(REPO)),
            environment=environment,
        )  # fmt: skip
        show_extract(results)
    finally:
        crank("down", environment=environment)
    say(f"done in {time.monotonic() - began_sec:.0f} s; run it again: what was built is kept")


if __name__ == "__main__":
    main()
