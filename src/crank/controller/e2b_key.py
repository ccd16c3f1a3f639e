"""The key with which this machine's own user reaches the E2B listener: minted once, kept in a file of theirs."""

import contextlib

from crank.controller.desk import Desk
from crank.controller.keys import KeyWanted, hash_of, mint, revoke
from crank.domain.credential import CredentialKind
from crank.domain.ids import LOCAL_TENANT
from crank.domain.rules import access
from crank.errors import NotFound

NAME = "e2b-local"


async def ensure_local_key(desk: Desk, secret: str) -> str:
    """Return the secret that is to lie in the file: the one given, while it opens something, or that of a new key.

    secret  what the file holds now; empty when there is none
    """
    found = await desk.store.read(lambda tx: tx.credentials.by_secret(hash_of(secret))) if secret else None
    if found is not None and found.kind is CredentialKind.E2B and access.lives(found, desk.clock.now_us()):
        return secret
    subject = desk.policy.controller_id
    with contextlib.suppress(NotFound):
        await revoke(desk, tenant=LOCAL_TENANT, subject=subject, key=NAME)
    wanted = KeyWanted(NAME, CredentialKind.E2B)
    return (await mint(desk, tenant=LOCAL_TENANT, subject=subject, wanted=wanted)).secret
