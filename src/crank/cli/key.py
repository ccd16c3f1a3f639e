"""`crank key …`: credentials for agents and programs, each seeing only what is its own."""

import re
from collections.abc import Sequence
from typing import Annotated, Literal

from cyclopts import Parameter

from crank.cli.exit_codes import ExitCode
from crank.cli.reach import ask
from crank.cli.show import print_json, print_rows, say
from crank.client import AsyncClient, Key
from crank.domain.json import JsonObject, loads_strict
from crank.errors import InvalidRequest

Json = Annotated[bool, Parameter(help="Print JSON.", negative=(), show_default=False)]
_UNITS_SEC = {"m": 60, "h": 3_600, "d": 86_400, "w": 7 * 86_400}


def mint(
    name: Annotated[str, Parameter(help="What you call it: claude.")],
    /,
    *,
    mount: Annotated[
        tuple[str, ...], Parameter(help="A mount that it may name; may be repeated. None otherwise.", negative=())
    ] = (),
    capability: Annotated[
        tuple[str, ...],
        Parameter(
            help="All that it may be used for: document.convert, document.convert@1.2.0, document.*; may be repeated. Everything otherwise.",
            negative=(),
        ),
    ] = (),
    constraint: Annotated[
        tuple[str, ...],
        Parameter(help="A JSON Schema that the args of these capabilities must satisfy; may be repeated.", negative=()),
    ] = (),
    expires: Annotated[str | None, Parameter(help="How long it lasts: 90m, 12h, 30d, 4w. Until revoked otherwise.")] = None,
    kind: Annotated[
        Literal["api", "e2b", "owner"], Parameter(help="api for the API, e2b for the E2B listener, owner for everything.")
    ] = "api",
    json: Json = False,
) -> int:
    """Make a key and print its secret, this once: the node keeps only a hash of it."""
    expires_sec = None if expires is None else duration_sec(expires)
    rights = rights_of(capability, constraint)

    async def minting(client: AsyncClient) -> Key:
        return await client.keys.mint(name, kind=kind, mounts=mount, expires_sec=expires_sec, rights=rights)

    key = ask(minting)
    if json:
        print_json({**key.document, "secret": key.secret})
    else:
        print(key.secret)
        say(f"key {key.name} ({key.key_id}); the secret above is not shown again")
    return ExitCode.OK


def rights_of(capabilities: Sequence[str], constraints: Sequence[str]) -> list[JsonObject] | None:
    """Return rights as the client takes them; None where nothing bounds them. Raises InvalidRequest."""
    if constraints and not capabilities:
        raise InvalidRequest(
            "--constraint says more about what --capability names.", code="usage", field="constraint",
            fix="Add --capability NAME, or --capability '*'.",
        )  # fmt: skip
    narrowing = {"constraints": [schema_of(text) for text in constraints]} if constraints else {}
    named = [name.partition("@") for name in capabilities]
    return [{"identifier": name, **({"version": version} if at else {}), **narrowing} for name, at, version in named] or None


def schema_of(text: str) -> JsonObject:
    """Read a JSON Schema that was typed. Raises InvalidRequest."""
    found = loads_strict(text.encode("utf-8", "surrogateescape"))
    if not isinstance(found, dict):
        raise InvalidRequest("A constraint is a JSON Schema: an object.", code="usage", field="constraint")
    return found


def duration_sec(text: str) -> float:
    """Read a time such as 90m, 12h, 30d or 4w. Raises InvalidRequest."""
    found = re.fullmatch(r"([0-9]{1,6})([mhdw])", text)
    if found is None:
        raise InvalidRequest(
            f"{text[:40]!r} is no time.", code="usage", field="expires", fix="Say 90m, 12h, 30d or 4w."
        )
    return float(int(found[1]) * _UNITS_SEC[found[2]])


def list_keys(*, json: Json = False) -> int:
    """List the keys, oldest first, the revoked ones too. Secrets are never shown again."""

    async def listing(client: AsyncClient) -> tuple[Sequence[Key], dict[str, str]]:
        names = {mount.mount_id: mount.name or mount.mount_id for mount in await client.mounts()}
        return await client.keys.list(), names

    keys, names = ask(listing)
    if json:
        print_json({"keys": [key.document for key in keys]})
    else:
        rows = [(key.key_id, key.name, key.kind, _allows(key), _mounts(key, names), *_times(key)) for key in keys]
        print_rows(("KEY", "NAME", "KIND", "ALLOWS", "MOUNTS", "USED", "EXPIRES", "REVOKED"), rows)
    return ExitCode.OK


def _allows(key: Key) -> str:
    if key.rights is None:
        return "all"
    # What else bounds a right is in --json.
    named = [f"{one['identifier']}{'@' if 'version' in one else ''}{one.get('version', '')}" for one in key.rights]
    return " ".join(dict.fromkeys(named))


def _mounts(key: Key, names: dict[str, str]) -> str | None:
    return "all" if key.mounts is None else ", ".join(names.get(mount, mount) for mount in key.mounts) or None


def _times(key: Key) -> list[object]:
    return [key.document.get(name) for name in ("used_at", "expires_at", "revoked_at")]


def revoke(key: Annotated[str, Parameter(help="The key's id or name.")], /, *, json: Json = False) -> int:
    """Revoke a key at once. Its sessions close, its jobs that run or wait end; what it left stays yours to read."""

    async def revoking(client: AsyncClient) -> Key:
        return await client.keys.revoke(key)

    revoked = ask(revoking)
    if json:
        print_json(revoked.document)
    else:
        say(f"revoked {revoked.name} ({revoked.key_id})")
    return ExitCode.OK
