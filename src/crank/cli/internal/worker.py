"""The worker process; the keeper starts it."""

from crank.bootstrap.worker import run_worker
from crank.config import load


def main(*, leash: int | None = None) -> int:
    """Be the worker. `leash` is the keeper's socket."""
    run_worker(load(), leash)
    return 0
