"""Inside the sandbox: another means for Python's own modules where the filter leaves them none.

Where no control group counts what the kernel holds for a job, the filter refuses memory that is shared without
a file, and epoll (`seccomp.Permissions.counted`). Python code gets a file without a name, and poll.
"""

from __future__ import annotations

import mmap
import os
import select
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

_PLACE = "/dev/shm"


class _Shared(mmap.mmap):
    """Memory as the real one has it; where it may not be shared without a file, in one that has no name."""

    def __new__(cls, fileno: int, length: int, flags: int = mmap.MAP_SHARED, *more: Any, **named: Any) -> Self:
        """Take the same arguments as the real one."""
        try:
            return super().__new__(cls, fileno, length, flags, *more, **named)
        except PermissionError:
            if fileno != -1:
                raise
        file = os.open(_PLACE, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(file, length)
            return super().__new__(cls, file, length, flags & ~mmap.MAP_ANONYMOUS, *more, **named)
        except PermissionError:
            # No file there may be run; a page for code of one's own has nobody to be shared with.
            return super().__new__(cls, -1, length, flags & ~mmap.MAP_SHARED | mmap.MAP_PRIVATE, *more, **named)
        finally:
            os.close(file)


_Shared.__name__ = _Shared.__qualname__ = "mmap"
_Shared.__module__ = "mmap"


def stand_in() -> None:
    """Try, behind the filter, what may be refused, and put the other means in its place."""
    try:
        mmap.mmap(-1, 1).close()
    except OSError:
        mmap.mmap = _Shared  # type: ignore[misc]
    selectors = sys.modules.get("selectors")
    try:
        select.epoll().close()
    except OSError:
        # Whoever imports it later sees for itself what there is.
        if selectors is not None:
            selectors.DefaultSelector = selectors.PollSelector  # type: ignore[attr-defined]
