"""`crank token …`: short-lived tokens that allow less than what they are made of."""

import base64
import json as json_text
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from crank.cli.exit_codes import ExitCode
from crank.cli.key import duration_sec
from crank.cli.reach import ask
from crank.cli.show import print_json, print_rows, say
from crank.client import AsyncClient, ProofKey, Token
from crank.domain.chain import looks_like_chain
from crank.errors import InvalidRequest, NotAuthenticated

Json = Annotated[bool, Parameter(help="Print JSON.", negative=(), show_default=False)]


@Parameter(name="*")
@dataclass(frozen=True)
class Allowed:
    """What a new token shall allow, and to whom."""

    allow: Annotated[
        tuple[str, ...],
        Parameter(
            help="A capability, a prefix like 'document.*', or '*'; may be repeated. All of it otherwise.", negative=()
        ),
    ] = ()
    mount: Annotated[
        tuple[str, ...], Parameter(help="A mount that its calls may name; may be repeated.", negative=())
    ] = ()
    calls: Annotated[int | None, Parameter(help="How many jobs may be submitted with it.")] = None
    expires: Annotated[str | None, Parameter(help="How long it lasts, ten minutes at most: 5m.")] = None
    role: Annotated[str | None, Parameter(help="The role to assume.")] = None
    holder_key: Annotated[str | None, Parameter(help="Thumbprint (jkt) of the key of who shall hold it.")] = None
    depth: Annotated[int | None, Parameter(help="How often it may be passed on.")] = None
    key: Annotated[
        Path | None, Parameter(help="Your private key, of the token that you show or for the one that you ask for.")
    ] = None
    biscuit: Annotated[
        bool,
        Parameter(help="As a Biscuit: narrow it and pass it on without the node.", negative=(), show_default=False),
    ] = False

    def wanted(self) -> dict[str, Any]:
        """Return it as the client takes it. Raises InvalidRequest."""
        narrowing = {
            **({"mounts": list(self.mount)} if self.mount else {}),
            **({} if self.calls is None else {"calls_max": self.calls}),
        }
        if narrowing and not self.allow:
            raise InvalidRequest(
                "--mount and --calls say more about what --allow names.", code="usage", field="allow",
                fix="Add --allow CAPABILITY, or --allow '*'.",
            )  # fmt: skip
        return {
            "rights": [{"identifier": name, **narrowing} for name in self.allow] or None,
            "lifetime_sec": None if self.expires is None else int(duration_sec(self.expires)),
            "role": self.role,
            "holder_jkt": self.holder_key,
            "depth": self.depth,
            "biscuit": self.biscuit,
            "proof_key": None if self.key is None else ProofKey(self.key.read_bytes()),
        }


def mint(*, allowed: Allowed = Allowed(), json: Json = False) -> int:
    """Make a token of the owner's authority and print it, this once."""
    return _exchange(None, allowed.wanted(), json)


def exchange(
    subject: Annotated[
        str, Parameter(help="A token, a key's secret, or - to read one from standard input.", allow_leading_hyphen=True)
    ],
    /,
    *,
    allowed: Allowed = Allowed(),
    json: Json = False,
) -> int:
    """Exchange a token or a key for a token that allows less."""
    return _exchange(_read(subject), allowed.wanted(), json)


def _exchange(subject: str | None, wanted: dict[str, Any], json: bool) -> int:
    async def exchanging(client: AsyncClient) -> Token:
        return await client.tokens.exchange(subject, **wanted)

    token = ask(exchanging)
    if json:
        print_json({**token.document, "access_token": token.text})
    else:
        print(token.text)
        how = "bound to a key" if token.bound else "good for whoever holds it"
        say(f"token {token.grant_id} for {token.scope}; lasts {token.lives_sec} s, {how}; not shown again")
    return ExitCode.OK


def inspect(
    token: Annotated[str, Parameter(help="A token, or - to read it from standard input.", allow_leading_hyphen=True)], /
) -> int:
    """Show what a token says, read here and believed by nobody: its signature is not checked."""
    text = _read(token)
    if looks_like_chain(text):
        # Loaded for such a token alone.
        from crank.bootstrap.attenuation import describe  # noqa: PLC0415

        print_json({**describe(text), "checked": False})
    else:
        print_json(_claims(text))
    return ExitCode.OK


def verify(
    token: Annotated[str, Parameter(help="A token, or - to read it from standard input.", allow_leading_hyphen=True)],
    /,
    *,
    json: Json = False,
) -> int:
    """Ask the node whether a token is good now; ends with 1 when it is not."""
    text = _read(token)

    async def asking(client: AsyncClient) -> dict[str, Any]:
        return await client.tokens.introspect(text)

    told = ask(asking)
    if json:
        print_json(told)
    elif told["active"]:
        say(f"good: token {told['jti']} of {told['sub']} for {told['scope']}")
    if not told["active"]:
        raise NotAuthenticated(
            "The node does not know this token, or it has ended.", code="invalid_token", fix="Make another."
        )
    return ExitCode.OK


def revoke(
    token: Annotated[
        str, Parameter(help="A token, its id, or - to read it from standard input.", allow_leading_hyphen=True)
    ],
    /,
) -> int:
    """Revoke a token with all that came of it; what runs under them ends."""
    text = _read(token)

    async def revoking(client: AsyncClient) -> None:
        await client.tokens.revoke(text)

    ask(revoking)
    say("revoked")
    return ExitCode.OK


def list_tokens(*, json: Json = False) -> int:
    """List the last tokens that were made, the ended ones too. The tokens themselves are kept nowhere."""

    async def listing(client: AsyncClient) -> list[dict[str, Any]]:
        return list(await client.tokens.list(limit=100))

    found = ask(listing)
    if json:
        print_json({"tokens": found})
    else:
        rows = [_row(one) for one in found]
        print_rows(("TOKEN", "HOLDER", "ALLOWS", "BOUND", "STATE", "EXPIRES"), rows)
    return ExitCode.OK


def list_roles(*, json: Json = False) -> int:
    """List the roles that a token may be made under; each is a file in roles/, or comes with Crank."""

    async def listing(client: AsyncClient) -> list[dict[str, Any]]:
        return list(await client.tokens.roles())

    found = ask(listing)
    if json:
        print_json({"roles": found})
    else:
        rows = [(one["name"], one["lifetime_sec"], one["bearer_sec"], one["depth"], one["summary"]) for one in found]
        print_rows(("ROLE", "SECONDS", "BEARER", "DEPTH", "FOR"), rows)
    return ExitCode.OK


def _row(one: dict[str, Any]) -> tuple[object, ...]:
    allows = " ".join(dict.fromkeys(str(each["identifier"]) for each in one["authorization_details"]))
    state = "good" if one["active"] else "revoked" if one["revoked_at"] else "ended"
    return one["grant_id"], one["holder"], allows, "key" if one["bound"] else None, state, one["expires_at"]


def _read(text: str) -> str:
    """Return a token or secret as it was given, or from standard input: what is typed is seen by others."""
    return Path("/dev/stdin").read_text("ascii").strip() if text == "-" else text


def _claims(token: str) -> dict[str, Any]:
    parts = token.split(".")
    try:
        if len(parts) != 3:
            raise ValueError("three parts")
        header, claims = (
            json_text.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))) for part in parts[:2]
        )
    except ValueError as fault:
        raise InvalidRequest("This is no token.", code="invalid_token", field="token") from fault
    return {"header": header, "claims": claims, "checked": False}
