"""Shapes of keys: what is asked, and what is answered."""

from typing import Any, Literal

from pydantic import Field

from crank.api.models import Answer
from crank.api.wanted import Request
from crank.domain.grant_codec import DETAIL_TYPE


class KeyWanted(Request):
    """A new key."""

    name: str = Field(examples=["claude"])
    kind: Literal["owner", "api", "e2b"] = Field("api", description="e2b opens the E2B listener alone, api the API.")
    mounts: list[str] | None = Field(None, description="Names or ids of mounts that it may name; none unless said.")
    authorization_details: list[dict[str, Any]] | None = Field(
        None,
        description="What it may be used for (RFC 9396): rights as a token has them, without counts and budgets. Everything unless said.",
        examples=[[{"type": DETAIL_TYPE, "identifier": "document.convert", "version": "1.2.0"}]],
    )
    expires_sec: float | None = Field(None, description="Seconds from now; until it is revoked unless said.")


class KeyDocument(Answer):
    """A key without its secret."""

    key_id: str
    name: str
    kind: Literal["owner", "api", "e2b"]
    subject: str = Field(description="What records name.")
    mounts: list[str] | None = Field(description="Ids of the mounts that it may name; null: every mount.")
    authorization_details: list[dict[str, Any]] | None = Field(
        description="What it may be used for; null: everything that a key of its kind may."
    )
    created_at: str
    expires_at: str | None
    used_at: str | None = Field(description="About when it was last used.")
    revoked_at: str | None


class KeyMinted(KeyDocument):
    """A new key with its secret, which is shown this once."""

    secret: str


class KeysPage(Answer):
    """Keys, oldest first, revoked ones too."""

    keys: list[KeyDocument]
