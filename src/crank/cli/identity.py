"""`crank identity …`: what this node's authority issued, and what it took back."""

from typing import Annotated

from cyclopts import Parameter

from crank.cli.exit_codes import ExitCode
from crank.cli.reach import ask
from crank.cli.show import print_json, print_rows, say
from crank.client import AsyncClient
from crank.domain.json import JsonObject

Json = Annotated[bool, Parameter(help="Print JSON.", negative=(), show_default=False)]


def list_identities(
    *,
    limit: Annotated[int, Parameter(help="Certificates to show, the newest; 1 to 1000.")] = 100,
    json: Json = False,
) -> int:
    """List the certificates that have not expired, newest first, and the identities that are revoked."""

    async def listing(client: AsyncClient) -> JsonObject:
        return await client.identities.list(limit=limit)

    found = ask(listing)
    if json:
        print_json(found)
        return ExitCode.OK
    rows = [
        (one["spiffe_id"], one["serial"], one["attestation"], one["expires_at"], one["revoked_at"])
        for one in found["identities"]
    ]
    print_rows(("IDENTITY", "SERIAL", "ATTESTATION", "EXPIRES", "REVOKED"), rows)
    for ban in found["revoked"]:
        say(f"revoked: {ban['spiffe_id']} since {ban['since']}{': ' if ban['reason'] else ''}{ban['reason']}")
    return ExitCode.OK


def revoke(
    identity: Annotated[str, Parameter(help="A SPIFFE ID, or the serial of one certificate.")],
    /,
    *,
    reason: Annotated[str, Parameter(help="For the record; at most 200 characters.")] = "",
    json: Json = False,
) -> int:
    """Take an identity back at once: its connections close, its leases are decided, every worker is told.

    A SPIFFE ID gets no certificate until 'crank identity allow' lifts that; a serial is that certificate alone.
    """

    async def revoking(client: AsyncClient) -> JsonObject:
        return await client.identities.revoke(identity, reason=reason)

    revoked = ask(revoking)
    if json:
        print_json(revoked)
    else:
        say(f"revoked {identity}; certificates that had not expired: {len(revoked['identities'])}")
    return ExitCode.OK


def allow(identity: Annotated[str, Parameter(help="A SPIFFE ID that is revoked.")], /, *, json: Json = False) -> int:
    """Let a revoked SPIFFE ID get certificates again. Those that were revoked stay so."""

    async def allowing(client: AsyncClient) -> None:
        await client.identities.allow(identity)

    ask(allowing)
    if json:
        print_json({"spiffe_id": identity})
    else:
        say(f"allowed {identity}; it gets a certificate when it asks for one")
    return ExitCode.OK
