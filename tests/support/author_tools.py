"""A worker author's module, as one would write it, with a function for each way to end."""

import ctypes
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from pydantic import BaseModel

from crank.worker.app import CapabilityError, Worker

app = Worker("text-tools")
_COUNTS = {"calls": 0}


class Word(BaseModel):
    """A word and how often it came."""

    text: str
    times: int


@app.capability("text.count", version="1.2.0", effects="pure", error_codes=("too_short",))
def count(text: str, minimum: int = 1) -> list[Word]:
    """Count words.

    Only this first paragraph is shown.
    """
    print("counting", len(text))
    if not text:
        raise CapabilityError("too_short", "There is no text.")
    words = {word: text.split().count(word) for word in text.split()}
    return [Word(text=word, times=times) for word, times in sorted(words.items()) if times >= minimum]


@app.capability("text.later", version="1.0.0")
async def later(words: list[Word]) -> int:
    """Add up words, asynchronously."""
    return sum(word.times for word in words)


@app.capability("text.kept", version="1.0.0", effects="pure", isolation="per_worker", timeout_sec=5)
def kept(how: str = "count") -> int:
    """Count the calls that this process has seen; end in the way that is named."""
    if how == "crash":
        os.abort()
    if how == "raise":
        raise ValueError("no luck")
    if how == "sleep":
        print("ready", flush=True)
        time.sleep(600)
    _COUNTS["calls"] += 1
    return _COUNTS["calls"]


@app.capability("text.answer", version="1.0.0", effects="pure")
def give_answer() -> int:
    """Give the answer."""
    return 42


@app.capability("text.wait", version="1.0.0", effects="pure")
def wait() -> int:
    """Say that it began, and wait for ever."""
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    time.sleep(600)
    return 0


@app.capability("text.end", version="1.0.0", timeout_sec=5)
def end(how: str, n: int = 0) -> dict[str, int]:
    """End in the way that is named."""
    if how == "raise":
        raise ValueError("no luck")
    if how == "undeclared":
        raise CapabilityError("surprise", "Nobody declared this.")
    if how == "wrong":
        return {"n": "one"}  # type: ignore[dict-item]
    if how == "exit":
        sys.exit(3)
    if how == "exit with words":
        sys.exit("no more")
    if how == "fill":
        Path("/scratch/full").write_bytes(bytes(n))
    if how == "vanish":
        os._exit(4)
    if how == "crash":
        os.abort()
    if how == "eat":
        len(bytearray(1 << 30))
    if how == "large":
        return {str(number): number for number in range(n)}
    if how == "flood":
        while True:
            print("x" * 10_000)
    if how == "sleep":
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        time.sleep(600)
    if how == "environment":
        return dict.fromkeys(os.environ, 1)
    return {"pid": os.getpid()}


@app.capability("text.break_out", version="1.0.0", timeout_sec=20)
def break_out(how: str, path: str = "/etc/shadow", port: int = 0) -> str:
    """Try to leave the sandbox in the way that is named; say what came of it."""
    try:
        return _tried(how, path, port)
    except OSError as refusal:
        return f"refused {type(refusal).__name__}"


def _tried(how: str, path: str, port: int) -> str:
    if how == "read":
        return Path(path).read_text("utf-8", "replace")
    if how == "write":
        Path(path).write_text("changed", "utf-8")
    if how == "connect":
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    if how == "program":
        subprocess.run(["/bin/sh", "-c", "id"], check=False)
    if how == "fork":
        for _ in range(10_000):
            os.fork()
    if how == "raw fork":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.fork() < 0:
            raise OSError(ctypes.get_errno(), "refused")
    if how == "threads":
        waiting = threading.Event()
        for _ in range(10_000):
            threading.Thread(target=waiting.wait, daemon=True).start()
    if how == "leave":
        # Nobody waits for it; it must not outlive the call.
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    return "done"
