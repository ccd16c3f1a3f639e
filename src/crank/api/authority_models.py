"""Shapes of the authority: what is asked of it, and how it stands."""

from typing import Literal

from pydantic import Field

from crank.api.models import Answer
from crank.api.wanted import Request


class RotationWanted(Request):
    """One step of the change to another root."""

    step: Literal["prepare", "activate", "retire", "abort"] = Field(
        description="prepare publishes a new root, activate lets it sign, retire ends the old one, abort goes back."
    )
    force: bool = Field(
        False, description="Take it although connected workers, or certificates that are valid, are cut off by it."
    )


class SigningDocument(Answer):
    """One certificate of the authority's own."""

    tier: Literal["root", "authority", "issuing", "flat"] = Field(
        description="flat: the single authority of versions before step 4, published for 30 days more."
    )
    root: str | None = Field(description="The mark of the root that it stands under.")
    serial: str
    valid_from: str
    expires_at: str
    key: str = Field(description="Where its key is.")


class AuthorityDocument(Answer):
    """How the authority stands."""

    trust_domain: str
    phase: Literal["settled", "prepared", "activated"]
    signs: str = Field(description="The mark of the root that signs.")
    other: str | None = Field(description="The next root while prepared, the old one once activated.")
    drained_at: str | None = Field(description="When the last certificate below the other root has expired.")
    sequence: int = Field(description="Of the bundle; it grows with every change of its content.")
    leaf_ttl_sec: float
    unaware: list[str] = Field(description="Connected workers, machines and followers of the bundle, and the controller itself, that do not have this sequence yet.")
    root_keys: list[str] = Field(description="Files of root keys that still lie beside the node: move them away.")
    certificates: list[SigningDocument]
