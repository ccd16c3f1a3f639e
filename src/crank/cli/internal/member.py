"""The worker of a machine that joined a controller elsewhere; `crank node join` starts it."""

from crank.bootstrap.member_keeper import run_member_worker
from crank.config import load


def main(*, leash: int | None = None) -> int:
    """Be that worker. `leash` is the socket of who keeps it."""
    run_member_worker(load(), leash)
    return 0
