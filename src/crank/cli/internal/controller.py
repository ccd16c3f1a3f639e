"""The controller process; the keeper starts it."""

from crank.bootstrap.controller import run_controller
from crank.config import load


def main(*, leash: int | None = None) -> int:
    """Be the controller. `leash` is the keeper's socket."""
    run_controller(load(), leash)
    return 0
