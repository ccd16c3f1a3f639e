"""Outliving the job, or never coming to its end."""

from tests.attacks.case import Case

LIFETIME = (
    Case(
        "E01 a daemon outlives the script",
        """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 64)
        while True:
            time.sleep(1)
    os._exit(0)
os.wait()
print("parent is done")
""",
        programs=True,
        stdout="parent is done",
    ),
    Case(
        "E01 a daemon and a deadline",
        """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 64)
    while True:
        time.sleep(1)
print("before the deadline", end="")
while True:
    time.sleep(1)
""",
        programs=True,
        reasons=("timeout",),
        limits={"wall_sec": 5},
        stdout="before the deadline",
    ),
    Case(
        "E03 children that handle every signal",
        """
import os, signal, time
for number in range(1, 65):
    try:
        signal.signal(number, lambda *_: None)
    except (OSError, ValueError):
        pass
for _ in range(8):
    if os.fork() == 0:
        break
while True:
    time.sleep(0.1)
""",
        programs=True,
        reasons=("timeout",),
        limits={"wall_sec": 1},
    ),
    Case(
        "E03 a stopped tree",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\n",
        reasons=("timeout",),
        limits={"wall_sec": 1},
    ),
    Case(
        "E04 a child keeps stdout open",
        """
import os, time
if os.fork() == 0:
    while True:
        time.sleep(1)
print("parent is done")
""",
        programs=True,
        stdout="parent is done",
    ),
    Case(
        "E06 a storm of zombies",
        """
import os
for _ in range(3_000):
    pid = os.fork()
    if pid == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(pid, 0)
print("storm over")
""",
        programs=True,
        stdout="storm over",
        limits={"wall_sec": 60},
    ),
    Case(
        "E15 endings that never end",
        "import atexit, threading\natexit.register(lambda: [None for _ in iter(int, 1)])\n",
        reasons=("timeout",),
        limits={"wall_sec": 1},
    ),
)
