"""Small request headers that Crank honours: Prefer (RFC 7240) and traceparent (W3C Trace Context)."""

import re
from collections.abc import Sequence

from crank.domain.quantity import WAIT_SEC_MAX

_WAIT = re.compile(r'\s*wait\s*=\s*"?(\d{1,9})"?\s*(;.*)?', re.IGNORECASE)
_TRACE = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def wait_sec(headers: Sequence[str]) -> int | None:
    """Return for how many seconds the caller is ready to wait, at most 40; None when it did not say.

    A preference that cannot be read is ignored, as RFC 7240 section 2 wants.
    """
    for preference in ",".join(headers).split(","):
        if match := _WAIT.fullmatch(preference):
            return min(int(match[1]), WAIT_SEC_MAX)
    return None


def traceparent(header: str | None) -> str | None:
    """Return a well-formed trace context; a broken one is ignored and the trace starts here."""
    return header if header is not None and _TRACE.fullmatch(header) else None
