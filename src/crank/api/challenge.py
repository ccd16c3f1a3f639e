"""What a caller who is not known is told to show, and where to get it (RFC 6750, 9449 and 9728)."""

from crank.errors import CrankError

RESOURCE_PATH = "/.well-known/oauth-protected-resource"
_ERRORS = {"invalid_token": "Bearer", "invalid_dpop_proof": "DPoP"}


def challenge(fault: CrankError, place: str | None) -> str:
    """Return the value of WWW-Authenticate; `place` is this node's address where it is known."""
    scheme = _ERRORS.get(fault.error_code, "Bearer")
    parts = [] if scheme == "DPoP" else ['realm="crank"']
    if fault.error_code in _ERRORS:
        parts.append(f'error="{fault.error_code}"')
    if scheme == "DPoP":
        parts.append('algs="ES256"')
    if place:
        parts.append(f'resource_metadata="{place}{RESOURCE_PATH}"')
    return f"{scheme} {', '.join(parts)}"
