"""The register of mounts as one JSON file: a list of the real paths of folders, in order."""

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from crank.errors import Unavailable


class FileMountRegister:
    """The MountRegister port on a file that only the controller's account may read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, paths: Sequence[str]) -> None:
        """Replace the list. Raises Unavailable."""
        try:
            self._replace(json.dumps(sorted(set(paths)), indent=1).encode())
        except OSError as fault:
            raise Unavailable(
                f"The register of mounts cannot be written: {fault.strerror}.",
                code="mounts_not_registered",
                fix="Free space on the disk of the node's home, or correct its owner and mode.",
                detail=repr(fault),
            ) from fault

    def _replace(self, content: bytes) -> None:
        beside = self._path.with_name(f".{self._path.name}.new")
        with contextlib.suppress(FileNotFoundError):
            # Left by a crash: there is one writer.
            beside.unlink()
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as target:
            target.write(content)
            target.flush()
            os.fsync(target.fileno())
        beside.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
