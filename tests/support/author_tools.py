"""A worker author's module, as one would write it, with a function for each way to end."""

import os
import subprocess
import sys
import time
from pathlib import Path

from pydantic import BaseModel

from crank.worker.app import CapabilityError, Worker

app = Worker("text-tools")


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


@app.capability("text.end", version="1.0.0", timeout_sec=5)
def end(how: str, folder: str = "") -> dict[str, int]:
    """End in the way that is named."""
    if how == "raise":
        raise ValueError("no luck")
    if how == "undeclared":
        raise CapabilityError("surprise", "Nobody declared this.")
    if how == "wrong":
        return {"n": "one"}  # type: ignore[dict-item]
    if how == "exit":
        sys.exit(3)
    if how == "crash":
        os.abort()
    if how == "eat":
        len(bytearray(1 << 30))
    if how == "flood":
        while True:
            print("x" * 10_000)
    if how == "child":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(folder, "child").write_text(str(child.pid), "ascii")
        # One write: whoever waits for it may stop this call at once.
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        time.sleep(600)
    if how == "environment":
        return dict.fromkeys(os.environ, 1)
    return {"pid": os.getpid()}
