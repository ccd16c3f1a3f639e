"""`crank up`: the node of this machine."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from crank.bootstrap.files import is_locked
from crank.bootstrap.keeper import run_keeper
from crank.bootstrap.node import start_node_alone
from crank.bootstrap.profiles import Profiles
from crank.cli.exit_codes import ExitCode
from crank.cli.show import print_json, say
from crank.config import load
from crank.errors import Conflict

Json = Annotated[bool, Parameter(help="Print JSON.", negative=(), show_default=False)]


def up(
    *,
    detach: Annotated[
        bool, Parameter(help="Start it in the background and return.", negative=(), show_default=False)
    ] = False,
    api_port: Annotated[int | None, Parameter(help="Port of the API; 0 takes any free one (CRANK_API_PORT).")] = None,
    workers_port: Annotated[int | None, Parameter(help="Port for workers; 0 as above (CRANK_WORKERS_PORT).")] = None,
    public_url: Annotated[
        str | None, Parameter(help="Address under which others reach the API from outside (CRANK_PUBLIC_URL).")
    ] = None,
    tls_cert: Annotated[
        Path | None, Parameter(help="Certificate chain that others trust, for the API (CRANK_TLS_CERT).")
    ] = None,
    tls_key: Annotated[Path | None, Parameter(help="Its key (CRANK_TLS_KEY).")] = None,
    json: Json = False,
) -> int:
    """Start this machine's node: a controller and a worker.

    Builds python-core and python-docs when they are absent. Without --detach it runs until Ctrl-C.
    """
    said = {"api_port": api_port, "workers_port": workers_port, "public_url": public_url}
    files = {
        name: None if file is None else str(file.absolute())
        for name, file in (("tls_cert", tls_cert), ("tls_key", tls_key))
    }
    settings = load({**said, **files})
    if is_locked(settings):
        raise Conflict(
            f"A node runs already in {settings.home}.",
            code="node_running",
            fix="Use it ('crank node info'), stop it ('crank down'), or choose another CRANK_HOME.",
        )
    Profiles(settings).build_first(say)

    def ready(document: dict[str, object]) -> None:
        if json:
            print_json(document)
        say(f"node ready at {document['api']} (home {document['home']})")

    if detach:
        ready(start_node_alone(settings))
    else:
        run_keeper(settings, ready)
    return ExitCode.OK
