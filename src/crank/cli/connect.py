"""`crank connect`: put this node into the list of MCP servers of a host of agents, once it is proven to work there."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from crank.bootstrap.host_file import change
from crank.bootstrap.list_tools import list_tools
from crank.bootstrap.profiles import Profiles
from crank.cli.connect_elsewhere import ELSEWHERE
from crank.cli.exit_codes import ExitCode
from crank.cli.show import print_json, say
from crank.config import Settings, command_line, home_is_default, host_folders, load
from crank.domain.rules.hosts import (
    HOSTS,
    Base,
    Host,
    entry_of,
    place_of,
    snippet,
    with_entry,
    without_entry,
)
from crank.errors import InvalidRequest, NotSupported

Flag = Annotated[bool, Parameter(negative=(), show_default=False)]


def connect(
    host: Annotated[str, Parameter(help=f"One of {', '.join((*HOSTS, *ELSEWHERE))}.")],
    /,
    *,
    project: Annotated[Path | None, Parameter(help="Write the list of this project, not the person's.")] = None,
    print_only: Annotated[Flag, Parameter(name="--print", help="Only print what would be written.")] = False,
    remove: Annotated[Flag, Parameter(help="Take it out again.")] = False,
    verify: Annotated[
        bool, Parameter(help="First start the command as the host will, and list its tools.", negative="--no-verify")
    ] = True,
    tunnel: Annotated[Flag, Parameter(help="chatgpt: the ways by which ChatGPT reaches a node at home.")] = False,
    json: Annotated[Flag, Parameter(help="Print JSON.")] = False,
) -> int:
    """Connect a host of agents to this node.

    Adds one entry to the host's own file: the rest of it stays, the file before is kept beside, no secret is written.
    For chatgpt and e2b nothing is written; what to do is printed.
    """
    settings = load()
    if host in ELSEWHERE:
        if remove or project is not None:
            raise NotSupported(f"For {host} nothing is written.", field="host", fix="Leave --remove and --project out.")
        return ELSEWHERE[host](settings, tunnel, json)
    if tunnel:
        raise NotSupported("Only ChatGPT needs a tunnel.", field="tunnel", fix="crank connect chatgpt --tunnel")
    chosen = _host(host)
    path = _path(chosen, project)
    if remove:
        backup = change(path, lambda text: without_entry(text, chosen))
        return _tell({"host": host, "file": str(path), "backup": _said(backup), "next": chosen.after}, json)
    command, environment = (*command_line(), "mcp"), _environment(settings)
    entry = entry_of(chosen, command, environment)
    if print_only:
        return _print(chosen, path, entry, as_json=json)
    tools = _verified(settings, command, environment) if verify else None
    backup = change(path, lambda text: with_entry(text, chosen, entry))
    shown = {"host": host, "file": str(path), "backup": _said(backup), "entry": entry, "tools": tools}
    return _tell({**shown, "next": chosen.after}, json)


def _host(name: str) -> Host:
    if name not in HOSTS:
        known = ", ".join((*HOSTS, *ELSEWHERE))
        raise InvalidRequest(
            f"There is no host {name[:40]!r}.", code="unknown_host", field="host", fix=f"Known: {known}."
        )
    return HOSTS[name]


def _path(host: Host, project: Path | None) -> Path:
    """Return the host's file: the person's, or that of a project; a host that knows projects alone means this folder."""
    base, parts = place_of(host, project=project is not None)
    home, config = host_folders()
    folder = {Base.HOME: home, Base.CONFIG: config, Base.PROJECT: (project or Path.cwd()).absolute()}[base]
    return folder.joinpath(*parts)


def _environment(settings: Settings) -> Mapping[str, str]:
    """Return what the command must be told: a host hands on nothing of this shell."""
    return {} if home_is_default(settings) else {"CRANK_HOME": str(settings.home)}


def _verified(settings: Settings, command: Sequence[str], environment: Mapping[str, str]) -> Sequence[str]:
    # Where no node runs the command starts one, and a host would not wait until profiles are built.
    Profiles(settings).build_first(say)
    say("starting the command as the host will, to list its tools …")
    return list_tools(command, environment)


def _print(host: Host, path: Path, entry: Mapping[str, Any], *, as_json: bool) -> int:
    if as_json:
        print_json({"host": host.name, "file": str(path), "section": host.section, "entry": entry})
    else:
        say(f"{host.title}: put this into {path}")
        print(snippet(host, dict(entry)))
    return ExitCode.OK


def _said(backup: Path | None) -> str | None:
    return None if backup is None else str(backup)


def _tell(document: Mapping[str, Any], as_json: bool) -> int:
    if as_json:
        print_json(document)
        return ExitCode.OK
    if document.get("tools"):
        say(f"works: {len(document['tools'])} tools ({', '.join(document['tools'])})")
    print(document["file"])
    if document["backup"]:
        say(f"the file before is kept as {document['backup']}")
    say(str(document["next"]))
    return ExitCode.OK
