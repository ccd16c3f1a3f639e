"""`crank identity fetch`: an identity as files, for programs that speak no Workload API."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from crank.bootstrap.fetch_identity import Fetched, Wish, keep, parse_signal
from crank.bootstrap.node import node_info
from crank.cli.exit_codes import ExitCode
from crank.cli.show import print_json, say
from crank.config import endpoint_socket, load
from crank.errors import InvalidRequest


@Parameter(name="*")
@dataclass(frozen=True)
class After:
    """Who is told after each change."""

    exec: Annotated[
        str | None, Parameter(help="Command to run after each change, such as 'nginx -s reload'; no shell is used.")
    ] = None
    signal: Annotated[str | None, Parameter(help="Signal to send after each change, such as HUP; needs --pid-file.")] = None
    pid_file: Annotated[Path | None, Parameter(help="File in whose first line stands the number of the process to send it to.")] = None


def fetch(
    *,
    dir: Annotated[Path, Parameter(help="Folder for key.pem, cert.pem, bundle.pem and crl.pem; made if absent.")],  # noqa: A002
    after: After | None = None,
    hint: Annotated[str | None, Parameter(help="Which identity, where this process has several.")] = None,
    socket: Annotated[
        str | None, Parameter(help="unix:///… of the socket; SPIFFE_ENDPOINT_SOCKET or the running node's unless said.")
    ] = None,
    watch: Annotated[
        bool, Parameter(help="Go on, and write anew whenever something changed.", negative=(), show_default=False)
    ] = False,
    json: Annotated[bool, Parameter(help="Print JSON.", negative=(), show_default=False)] = False,
) -> int:
    """Write this process's identity as files that only this account may read, once or for as long as it runs."""
    told_to = after or After()
    if (told_to.signal is None) != (told_to.pid_file is None):
        raise InvalidRequest(
            "--signal and --pid-file belong together.", code="usage", field="signal", fix="Give both, or neither."
        )
    signal = None if told_to.signal is None else parse_signal(told_to.signal)
    wish = Wish(dir.absolute(), hint, told_to.exec, signal, told_to.pid_file)
    address = socket or endpoint_socket() or str(node_info(load()).get("spiffe_socket", ""))

    def told(fetched: Fetched) -> None:
        if json:
            print_json({"spiffe_id": fetched.spiffe_id, "files": [str(path) for path in fetched.files]})
        else:
            say(f"wrote {fetched.spiffe_id} to {wish.folder}")

    asyncio.run(keep(address, wish, watch=watch, told=told))
    return ExitCode.OK
