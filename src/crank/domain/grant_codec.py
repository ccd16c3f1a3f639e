"""The JSON forms of grants: the one that every store keeps, and the one that OAuth carries (RFC 9396)."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from crank.domain.grant import Grant, GrantId, Right
from crank.domain.ids import CredentialId, TenantId
from crank.domain.json import JsonObject
from crank.errors import StoreError

DETAIL_TYPE: Final = "urn:crank:capability"


def rights_document(rights: tuple[Right, ...]) -> list[JsonObject]:
    """Return the JSON form of rights; `parse_rights` reads it back to equal ones."""
    return [
        {
            **asdict(right),
            "constraints": list(right.constraints),
            "mounts": None if right.mounts is None else list(right.mounts),
        }
        for right in rights
    ]


def parse_rights(document: Any) -> tuple[Right, ...]:
    """Read stored rights. Raises StoreError (`store_corrupt`)."""
    try:
        return tuple(
            Right(
                **{
                    **entry,
                    "constraints": tuple(entry["constraints"]),
                    "mounts": None if entry["mounts"] is None else tuple(entry["mounts"]),
                }
            )
            for entry in document
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise _damaged(fault) from fault


def grant_document(grant: Grant) -> JsonObject:
    """Return the JSON form of a grant; `parse_grant` reads it back to an equal one."""
    return {**asdict(grant), "rights": rights_document(grant.rights), "actors": list(grant.actors)}


def parse_grant(document: Any) -> Grant:
    """Read a stored grant. Raises StoreError (`store_corrupt`)."""
    try:
        parent = document["parent"]
        return Grant(
            **{
                **document,
                "grant_id": GrantId(document["grant_id"]),
                "tenant": TenantId(document["tenant"]),
                "credential_id": CredentialId(document["credential_id"]),
                "rights": parse_rights(document["rights"]),
                "actors": tuple(document["actors"]),
                "parent": None if parent is None else GrantId(parent),
                "space": CredentialId(document["space"]),
            }
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise _damaged(fault) from fault


def _damaged(fault: Exception) -> StoreError:
    return StoreError(f"A stored grant cannot be read back: {fault!r}.", code="store_corrupt")


def details_document(rights: Sequence[Right]) -> list[JsonObject]:
    """Return the JSON form of rights, which `rules.authorization.parse_details` reads back to equal ones."""
    return [_document(right) for right in rights]


def scope_of(rights: Sequence[Right]) -> str:
    """Return the patterns that rights name, as `scope` shows them; what narrows them is in the details alone."""
    return " ".join(dict.fromkeys(right.capability for right in rights))


def _document(right: Right) -> JsonObject:
    return {
        "type": DETAIL_TYPE,
        "identifier": right.capability,
        **({} if right.version is None else {"version": right.version}),
        **({"constraints": list(right.constraints)} if right.constraints else {}),
        **({} if right.mounts is None else {"mounts": list(right.mounts)}),
        **({} if right.calls_max is None else {"calls_max": right.calls_max}),
        **({} if right.budget_max is None else {"budget_max": right.budget_max}),
        **({} if right.expires_at_sec is None else {"expires_at_sec": right.expires_at_sec}),
    }
