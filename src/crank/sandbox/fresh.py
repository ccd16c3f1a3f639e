"""What must not be shared by processes that one zygote forked: environment, chance, names, threads.

Runs in the zygote and in each child before any line of the job. Libraries that are not loaded are left alone.
"""

import atexit
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any


def check_one_thread(fail: Callable[[str, str], None], layer: str = "zygote", what: str = "its imports") -> None:
    """Refuse to serve with more than one thread: a fork copies one thread and every lock that others hold."""
    count = len(os.listdir("/proc/self/task"))
    if count != 1:
        fail(layer, f"{what} started {count - 1} thread(s)")


def begin(environment: Mapping[str, str], *, threads: int) -> None:
    """Make this forked process look and behave like one that was started alone."""
    os.environ.clear()
    os.environ.update(environment)
    _seed()
    _forget_exits()
    _raise_threads(threads)


def _loaded(name: str) -> Any:
    return sys.modules.get(name)


def _seed() -> None:
    """Seed every source of chance from the kernel's. `random` seeds itself after a fork."""
    if _loaded("ssl") or _loaded("_ssl"):
        import _ssl

        # OpenSSL sees a fork by its process id, and ours may be the zygote's own number in another namespace.
        _ssl.RAND_add(os.urandom(64), 64.0)
    if tempfile := _loaded("tempfile"):
        # It, too, goes by the process id.
        tempfile._name_sequence = None
    if uuid := _loaded("uuid"):
        uuid._last_timestamp = None
    if numpy_random := _loaded("numpy.random"):
        numpy_random.seed()
    if torch := _loaded("torch"):
        torch.seed()
    if process := _loaded("multiprocessing.process"):
        process.current_process()._config["authkey"] = process.AuthenticationString(os.urandom(32))


def _forget_exits() -> None:
    """Leave the zygote's exit functions behind, but those that finish a job's own work.

    Libraries register what tidies up a whole process, at a cost; ours ends at once, with nothing to tidy.
    """
    atexit._clear()
    if weakref := _loaded("weakref"):
        weakref.finalize._registered_with_atexit = False
    if logging := _loaded("logging"):
        atexit.register(logging.shutdown)
    if processes := _loaded("multiprocessing.util"):
        atexit.register(processes._exit_function)


def forget_crank() -> None:
    """Take our own modules out of sight; what we still need of them we hold. An author's module imports others."""
    for name in [name for name in sys.modules if name == "crank" or name.startswith("crank.")]:
        del sys.modules[name]


def _raise_threads(count: int) -> None:
    """The zygote imported with one thread, because threads do not survive a fork; the job may have more."""
    if torch := _loaded("torch"):
        torch.set_num_threads(count)
