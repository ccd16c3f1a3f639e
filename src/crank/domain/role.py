"""A role: the most that a token may carry which is made under it, and who may assume it."""

from dataclasses import dataclass

from crank.domain.grant import Right
from crank.domain.trust import Attestation


@dataclass(frozen=True, slots=True)
class Role:
    """One role of this node, from a file of the operator's or shipped.

    lifetime_sec  the longest life of a token that is bound to a key
    bearer_sec    the same of one that is bound to none; 0: there is none such
    depth         how often its tokens may be passed on
    who           names of keys that may assume it; `*` for every key, `owner` for the node's owner
    identities    SPIFFE IDs that may assume it by a JWT-SVID, or prefixes that end in `/*`; then it is
    key           by the authority of the key of this name
    attestation   whoever assumes it shows a certificate of at least this level, their own; None: none is needed
    """

    name: str
    summary: str
    rights: tuple[Right, ...]
    lifetime_sec: int
    bearer_sec: int
    depth: int
    who: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()
    key: str | None = None
    attestation: Attestation | None = None


@dataclass(frozen=True, slots=True)
class NodeCeiling:
    """The most that this node lets pass into any token, whatever a role says."""

    rights: tuple[Right, ...]
    lifetime_sec: int
    depth: int
