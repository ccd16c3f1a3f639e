"""What a caller may hand over, as bytes, text or a path, and how it is read."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from crank.domain.json import JsonValue

CHUNK_BYTES = 256 * 1024

Contents: TypeAlias = str | bytes | Path
Mounts: TypeAlias = Mapping[str, str] | Sequence[str]


def mount_uses(mounts: Mounts | None) -> list[JsonValue]:
    """Return mounts as a request names them."""
    if isinstance(mounts, Mapping):
        return [{"name": name, "mount": mount} for name, mount in mounts.items()]
    return list(mounts or ())


def digest_of(contents: Path | bytes) -> str:
    """Return the SHA-256 of bytes, or of the file at a path. Blocking."""
    if isinstance(contents, bytes):
        return hashlib.sha256(contents).hexdigest()
    with contents.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


async def chunks(path: Path) -> AsyncIterator[bytes]:
    """Yield a file's bytes, read in a thread."""
    with await asyncio.to_thread(path.open, "rb") as source:
        while chunk := await asyncio.to_thread(source.read, CHUNK_BYTES):
            yield chunk
