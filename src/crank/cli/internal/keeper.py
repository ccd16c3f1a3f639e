"""The keeper process of a node in the background; `crank up --detach` and `crank run` start it."""

from crank.bootstrap.keeper import run_background_keeper
from crank.config import load


def alone(*, leash: int | None = None) -> int:
    """Keep a node that goes on alone. `leash` is the socket of whoever waits for it to be ready."""
    run_background_keeper(load(), leash, bound=False)
    return 0


def bound(*, leash: int | None = None) -> int:
    """Keep a node that ends with the process that started it."""
    run_background_keeper(load(), leash, bound=True)
    return 0
