"""The programs that a profile lists, as files: what Landlock lets a job execute, and nothing else.

Runs in the zygote, inside the profile's root.
"""

import os
import struct
from collections.abc import Iterable

_FOLDERS = ("/usr/local/bin", "/usr/bin", "/bin")
_HEAD_BYTES = 64
_PT_INTERP = 3
_LOADER_BYTES_MAX = 256


def find(names: Iterable[str]) -> tuple[str, ...]:
    """Return the file of each program, and the loader that the kernel starts it with, if it has one.

    Raises FileNotFoundError for a program that the root does not hold.
    """
    found: list[str] = []
    for name in names:
        path = next((f"{folder}/{name}" for folder in _FOLDERS if os.path.exists(f"{folder}/{name}")), None)
        if path is None:
            raise FileNotFoundError(f"the program {name} is not there")
        found.append(os.path.realpath(path))
        named = loader(path)
        if named is not None:
            found.append(os.path.realpath(named))
    return tuple(dict.fromkeys(found))


def loader(path: str) -> str | None:
    """Return the loader that a 64-bit little-endian ELF file names (elf(5), PT_INTERP), or None."""
    with open(path, "rb") as source:
        head = source.read(_HEAD_BYTES)
        if len(head) < _HEAD_BYTES or head[:6] != b"\x7fELF\x02\x01":
            return None
        table, size, count = struct.unpack_from("<Q", head, 32)[0], *struct.unpack_from("<HH", head, 54)
        for number in range(count):
            source.seek(table + number * size)
            entry = source.read(size)
            if struct.unpack_from("<I", entry)[0] == _PT_INTERP:
                offset, length = struct.unpack_from("<Q", entry, 8)[0], struct.unpack_from("<Q", entry, 32)[0]
                source.seek(offset)
                return os.fsdecode(source.read(min(length, _LOADER_BYTES_MAX)).rstrip(b"\0"))
    return None
