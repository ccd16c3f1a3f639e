"""What one file does to its reader stays with that file: each way to misbehave, in real processes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.node import until

PACKAGE = Path(__file__).resolve().parents[3] / "profiles" / "capabilities"

# A program of its own: it forks, and pytest has threads.
PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path
from documents import bounds
from documents.faults import Failed

folder = Path(sys.argv[1])
bounds._STILL_SEC = 0.2

def refuse(told):
    raise Failed("encrypted", "it is")

def shout(told):
    while True:
        os.write(outlet(), b"x" * 65536)

def outlet():
    return max(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}"))

def leave_a_child(told):
    if os.fork() == 0:
        time.sleep(1000)
    (folder / "parent").write_text(str(os.getpid()))
    return "left"

def write_much(told):
    (folder / "much").write_bytes(bytes(3 << 20))

def progress(told):
    told(0.5, "half")
    return {"n": 1}

works = {
    "good": lambda told: "fine",
    "slow": lambda told: time.sleep(1000),
    "busy": lambda told: sum(iter(int, 1)),
    "large": lambda told: bytearray(1 << 31),
    "segv": lambda told: os.kill(os.getpid(), signal.SIGSEGV),
    "gone": lambda told: os._exit(3),
    "raised": lambda told: {}["x"],
    "refused": refuse,
    "much": write_much,
    "shout": shout,
    "orphan": leave_a_child,
    "told": progress,
}
heard = []
found = {}
orders = (bounds.Order(name, work) for name, work in works.items())
for ended in bounds.each(orders, bounds.Bounds(1.0, 256 << 20, 1 << 20, patience=8), 3, lambda *words: heard.append(words)):
    found[ended.key] = ended.answer if ended.fault is None else ended.fault.code
print(json.dumps({"found": found, "heard": heard, "mine": os.getpid()}))
"""


def _run(folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        env={"PYTHONPATH": str(PACKAGE)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_each_misbehaviour_ends_its_own_file_alone(tmp_path: Path) -> None:
    """Endless, large, crashing, shouting and orphaning work is named by a code, and the rest has its answers."""
    told = _run(tmp_path)
    # Cut off for saying too much, or for taking too long to say it, as busy as the machine may be.
    assert told["found"].pop("shout") in ("crashed", "too_slow")
    assert told["found"] == {
        "good": "fine",
        "slow": "too_slow",
        "busy": "too_slow",
        "large": "too_large",
        "segv": "crashed",
        "gone": "crashed",
        "raised": "unreadable",
        "refused": "encrypted",
        "much": "too_large",
        "orphan": "left",
        "told": {"n": 1},
    }
    assert ["told", 0.5, "half"] in told["heard"]
    # What is silent is said to be still at work, so that nobody takes it for dead.
    assert [heard for heard in told["heard"] if heard[0] == "slow" and heard[2].startswith("at work, for")]


def test_nothing_that_a_file_started_lives_on(tmp_path: Path) -> None:
    """The group of a file's process is gone when its answer is out."""
    _run(tmp_path)
    group = (tmp_path / "parent").read_text()
    # The kernel delivers a kill at once and ends the process when it gets to it.
    until(lambda: not _living(group), what="what was killed to end")


def _living(group: str) -> list[Path]:
    alive = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[2] == group and fields[0] != "Z":
            alive.append(stat)
    return alive
