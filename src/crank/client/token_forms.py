"""The forms of the token endpoint, as its clients fill them in, and what its refusals mean."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crank.domain.chain import looks_like_chain

TOKEN_PATH = "/v1/token"  # noqa: S105 - an address
_GRANT_TYPE = "urn:ietf:params:oauth:grant-type:token-exchange"
_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - the name of a kind
_BISCUIT = "urn:crank:params:token-type:biscuit"
_KEY = "urn:crank:params:token-type:api-key"
_DETAIL = "urn:crank:capability"


def is_token(text: str) -> bool:
    """Tell whether this is a token rather than the secret of a key."""
    return (text.startswith("eyJ") and text.count(".") == 2) or looks_like_chain(text)


@dataclass(frozen=True, slots=True)
class TokenWanted:
    """What a new token shall allow, and to whom; what is left out is as wide as what is exchanged.

    scope       names of capabilities alone, with spaces between; rights are authorization_details without their `type`
    role        the role to assume
    biscuit     as a Biscuit, which its holder narrows and passes on without the node; it needs a proven key
    actor       the token or key of who shall act; holder_jkt the thumbprint of their key
    """

    scope: str | None = None
    rights: Sequence[Mapping[str, Any]] | None = None
    role: str | None = None
    actor: str | None = None
    holder_jkt: str | None = None
    lifetime_sec: int | None = None
    depth: int | None = None
    biscuit: bool = False


def exchange_form(subject: str, wanted: TokenWanted) -> dict[str, str]:
    """Return the fields of an exchange."""
    fields = {"grant_type": _GRANT_TYPE, **_shown("subject_token", subject)}
    if wanted.actor is not None:
        fields |= _shown("actor_token", wanted.actor)
    if wanted.biscuit:
        fields["requested_token_type"] = _BISCUIT
    if wanted.rights is not None:
        fields["authorization_details"] = json.dumps(details_of(wanted.rights))
    for name in ("scope", "role", "holder_jkt", "lifetime_sec", "depth"):
        value = getattr(wanted, name)
        if value is not None:
            fields[name] = str(value)
    return fields


def details_of(rights: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rights as `authorization_details` (RFC 9396)."""
    return [{"type": _DETAIL, **one} for one in rights]


def _shown(name: str, text: str) -> dict[str, str]:
    kind = _BISCUIT if looks_like_chain(text) else _TOKEN if is_token(text) else _KEY
    return {name: text, f"{name}_type": kind}
