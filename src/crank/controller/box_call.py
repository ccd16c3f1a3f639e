"""What is asked of an E2B sandbox: one request, what has come back for it, and how it may fail."""

import asyncio
from collections import deque

from crank.domain.json import JsonObject


class BoxGone(Exception):
    """The sandbox has ended; nothing that was asked of it can be answered."""


class BoxRefused(Exception):
    """The steward refused a request: a code of the Connect protocol and a sentence."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class BoxCall:
    """One request and what has come back for it."""

    def __init__(self) -> None:
        self.events: deque[tuple[JsonObject, int]] = deque()
        self.parts: list[str] = []
        self.bytes = 0
        self.changed = asyncio.Event()
        self.fault: Exception | None = None
        self.done: JsonObject | None = None


class LineReader:
    """Text in pieces, out in whole lines."""

    def __init__(self) -> None:
        self._parts: list[str] = []

    def feed(self, text: str) -> list[str]:
        """Take a piece; return the lines that it completes."""
        first, *rest = text.split("\n")
        self._parts.append(first)
        if not rest:
            return []
        whole = ["".join(self._parts), *rest[:-1]]
        self._parts = [rest[-1]]
        return whole
