"""The clerk: does what the runner asks about a session's files, as the job's own identity on the host.

It answers with open descriptors, so that the worker, which shares no identity with the job, reads and writes
contents without ever looking up a name that the job made.
"""

import errno
import os
from collections.abc import Callable
from typing import Any

from crank.domain.json import JsonObject
from crank.domain.profile import Limits
from crank.domain.rules.request import parse_relative_path
from crank.errors import CrankError, NotFound, ProtocolError
from crank.sandbox import artifacts, session_files

_LISTED_MAX = 10_000
Answer = tuple[JsonObject, int | None]


class Clerk:
    """Serves one session's /scratch and /out."""

    def __init__(self, scratch: int, out: int, limits: Limits) -> None:
        self._scratch = scratch
        self._out = out
        self._limits = limits
        self._operations: dict[str, Callable[[str], Answer]] = {
            "create": lambda path: self._put(path, replace=False),
            "put": lambda path: self._put(path, replace=True),
            "get": self._get,
            "list": self._list,
            "remove": self._remove,
            "survey": self._survey,
            "take": self._take,
        }

    def serve(self, request: JsonObject) -> Answer:
        """Do one thing from the closed list; return the answer, a fault or a value, and perhaps a descriptor."""
        try:
            operation = self._operations.get(request.get("operation", ""))
            path = request.get("path")
            if operation is None or not isinstance(path, str):
                raise ProtocolError("The file request is not one of those agreed.", code="request_kind")
            return operation(path)
        except OSError as fault:
            message = f"The files of this session refused that: {fault.strerror}."
            return {"fault": {"kind": "InvalidRequest", "code": "files_refused", "message": message}}, None
        except CrankError as fault:
            kind = type(fault).__name__
            return {"fault": {"kind": kind, "code": fault.error_code, "message": fault.message}}, None

    def full(self) -> tuple[bool, bool]:
        """Tell whether a folder has no room for bytes, and whether one has none for another file."""
        usages = [os.fstatvfs(folder) for folder in (self._scratch, self._out)]
        return any(usage.f_bavail == 0 for usage in usages), any(usage.f_ffree == 0 for usage in usages)

    def _put(self, path: str, *, replace: bool) -> Answer:
        return {"value": None}, session_files.create_file(self._scratch, path, replace=replace)

    def _get(self, path: str) -> Answer:
        return _opened(self._scratch, parse_relative_path(path, field="path"))

    def _take(self, path: str) -> Answer:
        return _opened(self._out, path)

    def _list(self, path: str) -> Answer:
        path = parse_relative_path(path, field="path") if path else ""
        try:
            listed = session_files.list_folder(self._scratch, path, most=_LISTED_MAX)
        except OSError as fault:
            raise _missing(path, fault) from fault
        prefix = f"{path}/" if path else ""
        return {"value": [[prefix + name, kind, size, modified] for name, kind, size, modified in listed]}, None

    def _remove(self, path: str) -> Answer:
        path = parse_relative_path(path, field="path")
        try:
            session_files.remove(self._scratch, path)
        except OSError as fault:
            if fault.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
            raise _missing(path, fault) from fault
        return {"value": None}, None

    def _survey(self, _: str) -> Answer:
        found = artifacts.survey(self._out, self._limits)
        skipped: list[Any] = [[each.path, each.cause] for each in found.skipped]
        return {"value": {"files": [list(file) for file in found.files], "skipped": skipped}}, None


def _opened(folder: int, path: str) -> Answer:
    try:
        descriptor, size = session_files.open_file(folder, path)
    except OSError as fault:
        raise _missing(path, fault) from fault
    return {"value": size}, descriptor


def _missing(path: str, fault: OSError) -> NotFound:
    cause = "it is not a regular file" if fault.errno in (errno.ENOTDIR, errno.ELOOP) else fault.strerror
    return NotFound(f"There is no file {path[:80]!r}: {cause}.", code="file_not_found", field="path")
