"""Named moments at which a test ends the process. In production there are none, and they cost nothing."""

import os
import signal
import threading

from crank.errors import ConfigurationError, Problem

_FIX = "Write name:kill, name:exit or name:stop, with @N for the Nth time, separated by commas."
_EXIT_CODE = 70


class NoFailpoints:
    """Production: nothing happens anywhere."""

    def reach(self, name: str) -> None:
        """Do nothing."""


class EnvFailpoints:
    """Acts at the moments that a text names: `store.before_commit:kill,worker.started:exit@3`.

    kill  SIGKILL to this process, as a crash does
    exit  leave at once with code 70, nothing flushed
    stop  SIGSTOP, as a machine that hangs
    Each acts the Nth time (`@N`, 1 when left out) that this process reaches the moment.
    Raises ConfigurationError that lists every part that is wrong.
    """

    def __init__(self, spec: str) -> None:
        self._armed: dict[str, tuple[str, int]] = {}
        self._seen: dict[str, int] = {}
        self._lock = threading.Lock()
        problems: list[Problem] = []
        for part in filter(None, (entry.strip() for entry in spec.split(","))):
            name, _, action_text = part.rpartition(":")
            action, at_sign, times = action_text.partition("@")
            if not name or action not in ("kill", "exit", "stop") or (at_sign and not _is_count(times)):
                problems.append(Problem(field=f"failpoints: {part}", cause="It cannot be read.", fix=_FIX))
                continue
            self._armed[name] = (action, int(times) if at_sign else 1)
        if problems:
            raise ConfigurationError("The failpoints cannot be read.", problems=problems)

    def reach(self, name: str) -> None:
        """End or stop the process when this is the moment that was asked for."""
        armed = self._armed.get(name)
        if armed is None:
            return
        action, times = armed
        with self._lock:
            seen = self._seen[name] = self._seen.get(name, 0) + 1
        if seen == times:
            _act(action)


def make_failpoints(spec: str) -> NoFailpoints | EnvFailpoints:
    """Return the failpoints that a text names; none in ordinary life. Raises ConfigurationError."""
    return EnvFailpoints(spec) if spec else NoFailpoints()


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) > 0


def _act(action: str) -> None:
    if action == "exit":
        os._exit(_EXIT_CODE)
    os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)
