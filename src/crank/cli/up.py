"""`crank up`: the node of this machine."""

from dataclasses import dataclass
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


@Parameter(name="*")
@dataclass(frozen=True)
class Doors:
    """By what else than its own API's port a node is reached."""

    public_url: Annotated[
        str | None, Parameter(help="Address under which others reach the API from outside (CRANK_PUBLIC_URL).")
    ] = None
    tls_cert: Annotated[
        Path | None, Parameter(help="Certificate chain that others trust, for the API (CRANK_TLS_CERT).")
    ] = None
    tls_key: Annotated[Path | None, Parameter(help="Its key (CRANK_TLS_KEY).")] = None
    e2b: Annotated[
        bool | None,
        Parameter(help="Serve E2B's clients, too (CRANK_E2B).", negative=(), show_default=False),
    ] = None
    e2b_port: Annotated[int | None, Parameter(help="Port for E2B's clients; 0 as above (CRANK_E2B_PORT).")] = None

    def said(self) -> dict[str, object]:
        """Return what was said, as settings; files by their whole path, because a node has a folder of its own."""
        files = {"tls_cert": self.tls_cert, "tls_key": self.tls_key}
        paths = {name: None if file is None else str(file.absolute()) for name, file in files.items()}
        return {"public_url": self.public_url, "e2b": self.e2b, "e2b_port": self.e2b_port, **paths}


def up(
    *,
    detach: Annotated[
        bool, Parameter(help="Start it in the background and return.", negative=(), show_default=False)
    ] = False,
    api_port: Annotated[int | None, Parameter(help="Port of the API; 0 takes any free one (CRANK_API_PORT).")] = None,
    workers_port: Annotated[int | None, Parameter(help="Port for workers; 0 as above (CRANK_WORKERS_PORT).")] = None,
    doors: Doors | None = None,
    json: Json = False,
) -> int:
    """Start this machine's node: a controller and a worker.

    Builds python-core and python-docs when they are absent. Without --detach it runs until Ctrl-C.
    """
    settings = load({"api_port": api_port, "workers_port": workers_port, **(doors or Doors()).said()})
    if is_locked(settings):
        raise Conflict(
            f"A node runs already in {settings.home}.",
            code="node_running",
            fix="Use it ('crank node info'), stop it ('crank down'), or choose another CRANK_HOME.",
        )
    Profiles(settings).build_first(say, e2b=settings.e2b)

    def ready(document: dict[str, object]) -> None:
        if json:
            print_json(document)
        if "e2b" in document:
            say("E2B's clients: crank node info --json shows every variable that they need (e2b.env)")
        say(f"node ready at {document['api']} (home {document['home']})")

    if detach:
        ready(start_node_alone(settings))
    else:
        run_keeper(settings, ready)
    return ExitCode.OK
