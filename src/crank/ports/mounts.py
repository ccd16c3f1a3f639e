"""Where the controller says which folders of its machine jobs may see."""

from collections.abc import Sequence
from typing import Protocol


class MountRegister(Protocol):
    """The list that a launcher believes: a folder that does not stand in it is never shown to a job.

    Only the controller writes it. A worker, which hands leases to the launcher, can neither read nor change it.
    """

    def write(self, paths: Sequence[str]) -> None:
        """Replace the whole list, durably and at once: a reader sees the old one or the new one.

        Blocking. Raises Unavailable when it cannot be written; then the old list stays.
        """
        ...
