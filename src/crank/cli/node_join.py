"""`crank node join` and `crank node thumbprint`: this machine works for a controller elsewhere."""

import re
import sys
from typing import Annotated

from cyclopts import Parameter

from crank.bootstrap.joining import ROOTS_MAX, JoinWanted
from crank.bootstrap.member_keeper import run_member, thumbprint
from crank.bootstrap.profiles import Profiles
from crank.cli.exit_codes import ExitCode
from crank.cli.show import print_json, say
from crank.config import load
from crank.domain.ids import Digest, parse_digest
from crank.errors import InvalidRequest

Json = Annotated[bool, Parameter(help="Print JSON.", negative=(), show_default=False)]
_PREFIX = "sha256:"
_TOKEN_CHARS_MAX = 256
_HOST = r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?):[1-9][0-9]{0,4}"


def join(
    controller: Annotated[str | None, Parameter(help="Where the controller's API listens: https://host:port.")] = None,
    /,
    *,
    workers: Annotated[str | None, Parameter(help="Where it listens for workers: host:port.")] = None,
    root: Annotated[
        tuple[str, ...], Parameter(help="SHA-256 of its root certificate: sha256:…; may be repeated.", negative=())
    ] = (),
    token: Annotated[
        str | None,
        Parameter(help="The join token, or - to read it from stdin. None where registered.", allow_leading_hyphen=True),
    ] = None,
    build: Annotated[
        bool, Parameter(help="Build the first profiles where they are absent.", negative="--no-build")
    ] = True,
) -> int:
    """Work for a controller elsewhere until Ctrl-C: paste what 'crank node invite' printed there.

    Later, without anything, it goes on for the controller that was joined before.
    """
    wanted = _wanted(controller, workers, root, token)
    settings = load()
    if build:
        Profiles(settings).build_first(say)
    run_member(settings, wanted, say)
    return ExitCode.OK


def _wanted(controller: str | None, workers: str | None, roots: tuple[str, ...], token: str | None) -> JoinWanted | None:
    if controller is None:
        if workers or roots or token:
            raise _usage("controller", "The controller's address is missing.")
        return None
    if not re.fullmatch(f"https://{_HOST}", controller) or not re.fullmatch(_HOST, workers or ""):
        raise _usage("controller", "The controller's addresses are https://host:port, and --workers host:port.")
    if not 1 <= len(roots) <= ROOTS_MAX:
        raise _usage("root", f"The controller is known by --root, one to {ROOTS_MAX} times.")
    return JoinWanted(controller, workers or "", tuple(_digest(each) for each in roots), _token(token))


def _digest(text: str) -> Digest:
    return parse_digest(text.removeprefix(_PREFIX), field="root")


def _token(text: str | None) -> str | None:
    if text != "-":
        return text
    read = sys.stdin.readline(_TOKEN_CHARS_MAX + 1).strip()
    if not 0 < len(read) <= _TOKEN_CHARS_MAX:
        raise _usage("token", "No token came on stdin.")
    return read


def _usage(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, code="usage", field=field, fix="Paste the whole command that 'crank node invite' printed.")


def show_thumbprint(*, json: Json = False) -> int:
    """Print the SHA-256 of this machine's own certificate, for 'crank node register' on a controller."""
    found = _PREFIX + thumbprint(load())
    if json:
        print_json({"thumbprint": found})
    else:
        print(found)
    return ExitCode.OK
