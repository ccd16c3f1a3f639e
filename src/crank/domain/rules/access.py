"""What a credential may do: whether it lives, which operations are the owner's, how its secret looks."""

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from typing import Final

from crank.domain.credential import Credential, CredentialKind
from crank.domain.grant import NODE_PREFIX, Right
from crank.domain.ids import CredentialId, JobId
from crank.domain.job import Refusal

API_PREFIX: Final = "crank_"
E2B_PREFIX: Final = "e2b_"
_E2B_DIGITS = 40
_ID_DIGITS = 12
# Kinds that each door lets in: a key for one of them opens no other.
API_KINDS: Final = frozenset({CredentialKind.OWNER, CredentialKind.API})
E2B_KINDS: Final = frozenset({CredentialKind.E2B})


class Action(StrEnum):
    """What only the owner may do."""

    CHANGE_MOUNTS = "mounts.change"
    CHANGE_KEYS = "keys.change"
    LIST_KEYS = "keys.list"
    READ_RECORDS = "records.read"
    CHANGE_NODES = "nodes.change"
    READ_NODES = "nodes.read"
    READ_IDENTITIES = "identities.list"
    CHANGE_IDENTITIES = "identities.change"
    ROTATE_ROOT = "root.rotate"
    CHANGE_FEDERATION = "federation.change"
    READ_FEDERATION = "federation.read"
    CHANGE_WORKLOADS = "workloads.change"
    LIST_WORKLOADS = "workloads.list"


_DOING = {
    Action.CHANGE_MOUNTS: "Adding and removing mounts is",
    Action.CHANGE_KEYS: "Minting, changing and revoking keys is",
    Action.LIST_KEYS: "Reading the list of keys is",
    Action.READ_RECORDS: "Reading the whole audit trail is",
    Action.CHANGE_NODES: "Inviting, registering and forgetting nodes is",
    Action.READ_NODES: "Reading the list of nodes is",
    Action.READ_IDENTITIES: "Reading the list of identities is",
    Action.CHANGE_IDENTITIES: "Revoking identities, and lifting that, is",
    Action.ROTATE_ROOT: "Changing the root of trust is",
    Action.CHANGE_FEDERATION: "Choosing which trust domains this node is federated with is",
    Action.READ_FEDERATION: "Reading which trust domains this node is federated with is",
    Action.CHANGE_WORKLOADS: "Registering and removing workloads is",
    Action.LIST_WORKLOADS: "Reading the list of workloads is",
}


def refusal(credential: Credential, action: Action) -> Refusal | None:
    """Return why this credential may not do this, or None when it may."""
    if not credential.bounded:
        return None
    return Refusal(
        "owner_only",
        f"{_DOING[action]} for the owner of the node, and this credential is a key of kind {credential.kind}.",
        "Ask the node's owner to do it.",
        str(action),
    )


def rights_refusal(kind: CredentialKind, rights: Sequence[Right]) -> Refusal | None:
    """Return why no key of this kind is made with these rights, or None. What nobody would honour is no limit."""
    if kind is CredentialKind.OWNER:
        return Refusal(
            "key_rights_of_owner",
            "An owner's key may do everything, so rights would not bound it.",
            "Make a key of kind api, or leave the rights out.",
            "authorization_details",
        )
    for place, right in enumerate(rights):
        where = f"authorization_details[{place}]"
        if right.capability.startswith(NODE_PREFIX):
            return Refusal(
                "key_right_owner_only",
                f"{right.capability} is the owner's, and no other key has it.",
                "Make a key of kind owner, or a token of the owner's that names it.",
                f"{where}.identifier",
            )
        if right.calls_max is not None or right.budget_max is not None:
            return Refusal(
                "key_right_counted",
                "A key counts nothing that is done with it.",
                "Leave the count out, and exchange the key for a token that has it: crank token exchange --calls.",
                f"{where}.{'budget_max' if right.calls_max is None else 'calls_max'}",
            )
        if kind is CredentialKind.E2B and (right.version is not None or right.constraints):
            return Refusal(
                "key_right_unspoken",
                "A client of E2B names neither a version nor args, so they cannot be bounded there.",
                "Name the capability alone; sandboxes of E2B are python.run.interpreter.",
                f"{where}.{'constraints' if right.version is None else 'version'}",
            )
    return None


def lives(credential: Credential, now_us: int) -> bool:
    """Tell whether a credential opens anything now: neither revoked nor expired."""
    return credential.revoked_us is None and (credential.expires_us is None or now_us < credential.expires_us)


def job_id_refusal(credential: Credential, job_id: JobId) -> Refusal | None:
    """Return why this credential may not choose this job id, or None.

    Ids are unique on a node. If a key could choose any, a refusal would tell it which ones others use.
    """
    space = f"{credential.credential_id}."
    if not credential.bounded or job_id.startswith(space):
        return None
    return Refusal(
        "job_id_not_yours",
        "A key names jobs in its own space alone.",
        f"Let job_id begin with {space!r}, or leave it out; idempotency_key takes any text.",
        "job_id",
    )


def make_secret(kind: CredentialKind, chance: str) -> str:
    """Make the text of a secret from 256 random bits: recognisable by its prefix, wherever it turns up."""
    if kind is CredentialKind.E2B:
        return E2B_PREFIX + hashlib.sha256(chance.encode()).hexdigest()[:_E2B_DIGITS]
    return API_PREFIX + chance


def make_credential_id(unique: str) -> CredentialId:
    """Make the short id of a credential from a fresh UUID, whose random tail it keeps."""
    return CredentialId("k-" + unique.replace("-", "")[-_ID_DIGITS:])
