"""`crank token attenuate`: make less of a token, or pass it on. Works without a node, on any machine."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from crank.bootstrap.attenuation import Narrowing, attenuate, describe, make_key
from crank.cli.exit_codes import ExitCode
from crank.cli.key import duration_sec, schema_of
from crank.cli.show import print_json, say
from crank.domain.chain import looks_like_chain
from crank.domain.json import loads_strict
from crank.errors import InvalidRequest

Json = Annotated[bool, Parameter(help="Print JSON.", negative=(), show_default=False)]
# Far more than a token; a file that is no token is not read whole.
_FILE_BYTES_MAX = 64 * 1024


@Parameter(name="*")
@dataclass(frozen=True)
class Left:
    """What is left of the token's rights."""

    capability: Annotated[
        tuple[str, ...],
        Parameter(help="A capability that stays: document.convert, document.*; may be repeated.", negative=()),
    ] = ()
    version: Annotated[str | None, Parameter(help="The only version that stays.")] = None
    mount: Annotated[tuple[str, ...], Parameter(help="A mount that stays; may be repeated.", negative=())] = ()
    no_mounts: Annotated[bool, Parameter(help="Let no mount stay.", negative=(), show_default=False)] = False
    constraint: Annotated[
        tuple[str, ...],
        Parameter(
            help="A JSON Schema that every call's args must satisfy; nothing that runs code stays. May be repeated.",
            negative=(),
        ),
    ] = ()
    calls: Annotated[int | None, Parameter(help="How many calls stay.")] = None
    budget: Annotated[int | None, Parameter(help="What the calls may cost together.")] = None
    expires: Annotated[str | None, Parameter(help="How long it lasts from now: 90m, 12h.")] = None


@Parameter(name="*")
@dataclass(frozen=True)
class Passed:
    """Whom it is passed on to."""

    holder: Annotated[
        str | None,
        Parameter(help="Pass it on: a file with the next holder's public key, a thumbprint, or a SPIFFE ID."),
    ] = None
    key: Annotated[Path | None, Parameter(help="The file with your private key, to pass it on.")] = None
    depth: Annotated[int | None, Parameter(help="How often the next holder may pass it on.")] = None


def attenuate_one(
    token: Annotated[
        str, Parameter(help="A token, the file that holds it, or - for standard input.", allow_leading_hyphen=True)
    ],
    /,
    *,
    left: Left = Left(),
    passed: Passed = Passed(),
    json: Json = False,
) -> int:
    """Print a narrower token. It can only lose rights; passed on, it is the next holder's alone."""
    wanted = _narrowing(left, passed)
    made = attenuate(
        read_token(token),
        wanted,
        holder=None if passed.holder is None else _holder(passed.holder),
        key_pem=None if passed.key is None else _read(str(passed.key)).encode(),
    )
    described = describe(made)
    if json:
        print_json({"token": made, **described})
    else:
        print(made)
        say(f"held by {described['present']['holder']}; this hop's revocation id: {described['revocation_ids'][-1]}")
    return ExitCode.OK


def _narrowing(left: Left, passed: Passed) -> Narrowing:
    if left.no_mounts and left.mount:
        raise InvalidRequest("Either some mounts stay or none.", code="usage", field="mount")
    return Narrowing(
        capabilities=left.capability,
        version=left.version,
        mounts=left.mount if left.mount or left.no_mounts else None,
        constraints=tuple(map(schema_of, left.constraint)),
        calls_max=left.calls,
        budget_max=left.budget,
        expires_sec=None if left.expires is None else duration_sec(left.expires),
        depth=passed.depth,
    )


def keygen(
    file: Annotated[
        Path, Parameter(help="The new file for the private key; the public one goes to the same name with .pub.")
    ],
    /,
    *,
    json: Json = False,
) -> int:
    """Make a P-256 key to hold tokens with, readable by you alone, and print its thumbprint."""
    private, public, thumbprint = make_key()
    _write_new(file, private, 0o600)
    _write_new(file.with_name(file.name + ".pub"), public, 0o644)
    if json:
        print_json({"jkt": thumbprint, "key_file": str(file), "public_key_file": f"{file}.pub"})
    else:
        print(thumbprint)
    return ExitCode.OK


def _holder(text: str) -> str:
    # A name or thumbprint never looks like a path that exists; a file with a key does.
    return text if text.startswith("spiffe://") or not Path(text).is_file() else _read(text)


def read_token(place: str) -> str:
    """Return a token: itself, in a file, or on standard input for `-`; alone, or in a node's answer. Raises InvalidRequest."""
    text = place if looks_like_chain(place) else _read(place).strip()
    if not text.startswith("{"):
        return text
    answer = loads_strict(text.encode())
    return str(answer.get("access_token") or answer.get("token") or "")


def _read(place: str) -> str:
    if place == "-":
        raw = sys.stdin.buffer.read(_FILE_BYTES_MAX + 1)
    else:
        with Path(place).open("rb") as file:
            raw = file.read(_FILE_BYTES_MAX + 1)
    if len(raw) > _FILE_BYTES_MAX:
        raise InvalidRequest("That file is too large to hold a token or a key.", code="usage", field="token")
    return raw.decode("utf-8", "replace")


def _write_new(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
