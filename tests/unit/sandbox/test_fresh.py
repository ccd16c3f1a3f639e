"""A forked process is made to look as if it had started alone. Tried in a process of its own, which it changes."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from crank.sandbox import fresh

_SOURCE = str(Path(fresh.__file__).parents[2])
_BEGIN = """
import atexit, json, logging, multiprocessing.process, os, random, sys, tempfile, uuid, weakref
sys.path.insert(0, {source!r})
from crank.sandbox import fresh
{before}
fresh.begin({{"HOME": "/scratch"}}, threads=2)
{after}
sys.stdout.write(json.dumps(result))
"""


def _after(before: str, after: str) -> Any:
    program = _BEGIN.format(source=_SOURCE, before=before, after=after)
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True, env={"OF_THE_HOST": "1"}
    )
    return json.loads(done.stdout)


def test_a_second_thread_is_counted() -> None:
    """One thread passes; with another the answer names the layer and how many there are too many."""
    told: list[tuple[str, str]] = []
    held = threading.Event()
    extra = threading.Thread(target=held.wait)
    extra.start()
    try:
        fresh.check_one_thread(lambda layer, cause: told.append((layer, cause)))
    finally:
        held.set()
        extra.join()
    assert told[0][0] == "zygote"
    assert "thread(s)" in told[0][1]


def test_one_thread_passes() -> None:
    """A process with one thread may be forked."""
    assert _after("told = []\nfresh.check_one_thread(lambda *cause: told.append(cause))", "result = told") == []


def test_the_environment_is_replaced() -> None:
    """Nothing of what was inherited or set before is left, also for what a library reads by itself."""
    after = "result = [dict(os.environ), os.path.expanduser('~')]"
    assert _after("os.environ['LEFT'] = 'x'", after) == [{"HOME": "/scratch"}, "/scratch"]


def test_chance_that_goes_by_the_process_id_is_begun_anew() -> None:
    """Names of temporary files, clock sequences and the secret of multiprocessing are not those of before."""
    before = (
        "tempfile.mktemp(); uuid._last_timestamp = 7\n"
        "names, key = tempfile._name_sequence, multiprocessing.process.current_process().authkey"
    )
    after = (
        "now = multiprocessing.process.current_process().authkey\n"
        "result = [tempfile._name_sequence is names, uuid._last_timestamp, bytes(now) == bytes(key), len(now)]"
    )
    assert _after(before, after) == [False, None, False, 32]


def test_exit_functions_of_before_do_not_run() -> None:
    """What modules registered for the zygote's end is forgotten; what a job needs at its own end is kept."""
    before = "atexit.register(lambda: print('of before'))"
    after = (
        "class Thing: pass\nthing = Thing()\nweakref.finalize(thing, os.write, 2, b'its own')\n"
        "result = [atexit._ncallbacks(), weakref.finalize._registered_with_atexit]"
    )
    # That of logging, and that of the finaliser that was made afterwards.
    assert _after(before, after) == [2, True]


def test_our_own_modules_are_out_of_sight() -> None:
    """A job that looks into sys.modules finds nothing of Crank."""
    after = "result = [name for name in sys.modules if name.startswith('crank')]"
    assert _after("fresh.forget_crank()", after) == []
