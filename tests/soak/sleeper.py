"""A reference: a process that wants next to nothing, and how late the machine let it have even that.

Where no control group holds jobs, the kernel shares processors out among all who want them, and a virtual machine
may not have any for seconds. What a sleeper that does nothing has to wait for, no supervisor can do earlier.
"""

import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NAP_SEC = 0.01
_LATE_SEC = 0.02
# In a session of its own, as every supervisor is.
_CODE = f"""
import time
while True:
    began = time.monotonic()
    time.sleep({_NAP_SEC})
    late = time.monotonic() - began - {_NAP_SEC}
    if late > {_LATE_SEC}:
        print(began, late, flush=True)
"""


class Sleeper:
    """What the sleeper told: when a nap began, and how much too long it was."""

    def __init__(self, said: Path) -> None:
        self._said = said
        self._at = 0
        self._naps: list[tuple[float, float]] = []

    def late_sec(self, begin: float, end: float) -> float:
        """Return by how much the worst nap between two moments (time.monotonic) was too long."""
        with self._said.open() as lines:
            lines.seek(self._at)
            for line in iter(lines.readline, ""):
                if not line.endswith("\n"):
                    break
                began, late = map(float, line.split())
                self._naps.append((began, late))
                self._at = lines.tell()
        # A nap that began earlier may reach into the time that is asked for.
        first = max(0, bisect_left(self._naps, (begin,)) - 1)
        found = [late for began, late in self._naps[first:] if began <= end and began + late + _NAP_SEC >= begin]
        return max(found, default=0.0)

    @property
    def worst_sec(self) -> float:
        """Return by how much its worst nap was too long."""
        return self.late_sec(0.0, time.monotonic())


@contextmanager
def sleeper(folder: Path) -> Iterator[Sleeper]:
    """Let a sleeper nap for this while."""
    said = folder / "sleeper"
    with said.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-I", "-S", "-c", _CODE], stdout=out, start_new_session=True)
    try:
        yield Sleeper(said)
    finally:
        process.kill()
        process.wait()
