"""How a process of a node tells that it cannot go on."""

import contextlib
from collections.abc import Awaitable, Callable, Iterator

from crank.bootstrap.leash import Leash
from crank.config import Settings
from crank.errors import ConfigurationError, CrankError

Serve = Callable[[Settings, Leash], Awaitable[None]]


@contextlib.contextmanager
def telling(leash: Leash) -> Iterator[None]:
    """Tell on the leash whatever keeps this process from going on, and raise it on."""
    try:
        yield
    except CrankError as fault:
        leash.tell_fault(fault)
        raise
    except OSError as fault:
        told = ConfigurationError(
            f"This machine refused: {fault.strerror or fault}.",
            code="machine_refused",
            detail=repr(fault),
            fix="Check disk and permissions; 'crank doctor' helps.",
        )
        leash.tell_fault(told)
        raise told from fault


async def held(serve: Serve, settings: Settings, leash: Leash) -> None:
    """Run a part of the node; whatever keeps it from running is told on the leash and raised on."""
    with telling(leash):
        await serve(settings, leash)


async def watched(serve: Serve, settings: Settings, leash: Leash) -> None:
    """As `held`, with the leash listened to from the start."""
    leash.watch()
    await held(serve, settings, leash)
