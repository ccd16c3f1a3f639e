"""Hosts of agents: where each keeps its list of MCP servers, what an entry looks like there, and how one is put in
among what the person has written, or taken out. Text in, text out: nothing here touches a file.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from crank.domain.json import JsonObject, loads_strict
from crank.errors import Conflict, InvalidRequest, NotSupported

SERVER_NAME = "crank"
HOST_FILE_BYTES_MAX = 4 * 1024 * 1024
_COMMENT = re.compile(rb'^\s*(//|/\*)|[{}\[\],":0-9a-z]\s*(//|/\*)|,\s*[}\]]', re.MULTILINE)
_INDENT = re.compile(r"^([ \t]+)\S", re.MULTILINE)


class Base(StrEnum):
    """The folder that a path is counted from.

    HOME     the person's own
    CONFIG   what the system gives programs for their settings: XDG_CONFIG_HOME, Application Support, %APPDATA%
    PROJECT  the folder of a project
    """

    HOME = "home"
    CONFIG = "config"
    PROJECT = "project"


@dataclass(frozen=True, slots=True)
class Host:
    """One host.

    places   where its list is, by the folder that the path is counted from; the first is the one that is meant
    section  the key under which servers stand; another one is silently ignored by the host
    typed    an entry says `type: stdio`
    after    what the person does next
    """

    name: str
    title: str
    places: Mapping[Base, Sequence[str]]
    section: str
    typed: bool
    after: str


HOSTS: Mapping[str, Host] = {
    host.name: host
    for host in (
        Host(
            "claude", "Claude Desktop", {Base.CONFIG: ("Claude", "claude_desktop_config.json")}, "mcpServers", False,
            "Quit Claude Desktop entirely and start it again.",
        ),
        Host(
            "claude-code", "Claude Code", {Base.PROJECT: (".mcp.json",)}, "mcpServers", True,
            "Start claude in that folder and allow the server when it asks; /mcp shows it.",
        ),
        Host(
            "cursor", "Cursor", {Base.HOME: (".cursor", "mcp.json"), Base.PROJECT: (".cursor", "mcp.json")}, "mcpServers",
            False, "Cursor reads it by itself; look at Settings, MCP.",
        ),
        Host(
            "vscode", "VS Code", {Base.CONFIG: ("Code", "User", "mcp.json"), Base.PROJECT: (".vscode", "mcp.json")}, "servers",
            True, "Run 'MCP: List Servers' in VS Code and start crank.",
        ),
        Host(
            "windsurf", "Windsurf", {Base.HOME: (".codeium", "windsurf", "mcp_config.json")}, "mcpServers", False,
            "Press the refresh button above Cascade's list of servers.",
        ),
    )
}  # fmt: skip


def place_of(host: Host, *, project: bool) -> tuple[Base, Sequence[str]]:
    """Return where a host's list is, for the person or for one project. Raises NotSupported."""
    if project and Base.PROJECT not in host.places:
        raise NotSupported(f"{host.title} has one list for all projects.", field="project", fix="Leave --project out.")
    return (Base.PROJECT, host.places[Base.PROJECT]) if project else next(iter(host.places.items()))


def entry_of(host: Host, command: Sequence[str], environment: Mapping[str, str]) -> JsonObject:
    """Return the entry: a command that finds its secret by itself, so that no file of a host ever holds one."""
    entry: JsonObject = {"type": "stdio"} if host.typed else {}
    entry |= {"command": command[0], "args": list(command[1:])}
    if environment:
        entry["env"] = dict(environment)
    return entry


def with_entry(text: str, host: Host, entry: JsonObject) -> str:
    """Return a host's file with our entry in it, and all else as it was; the same text when it says so already.

    Raises InvalidRequest (`host_file_unreadable`), Conflict (`host_file_unexpected`).
    """
    document = _read(text, host, entry)
    section = document.setdefault(host.section, {})
    if not isinstance(section, dict):
        raise _unexpected(host, entry)
    if section.get(SERVER_NAME) == entry:
        return text
    section[SERVER_NAME] = entry
    return _write(document, text)


def without_entry(text: str, host: Host) -> str:
    """Return a host's file without our entry; the same text when there is none. Raises as `with_entry`."""
    document = _read(text, host, None)
    section = document.get(host.section)
    if not isinstance(section, dict) or SERVER_NAME not in section:
        return text
    del section[SERVER_NAME]
    return _write(document, text)


def snippet(host: Host, entry: JsonObject) -> str:
    """Return the part to put in by hand."""
    return json.dumps({host.section: {SERVER_NAME: entry}}, indent=2, ensure_ascii=False)


def _read(text: str, host: Host, entry: JsonObject | None) -> JsonObject:
    raw = text.removeprefix("\ufeff").encode("utf-8", "surrogatepass")
    if not raw.strip():
        return {}
    try:
        document = loads_strict(raw)
    except InvalidRequest as fault:
        cause = "It holds comments or trailing commas, which would be lost." if _COMMENT.search(raw) else fault.message
        raise InvalidRequest(
            f"The file of {host.title} was left as it is. {cause}",
            code="host_file_unreadable",
            field="file",
            fix=_by_hand(host, entry),
        ) from fault
    if not isinstance(document, dict):
        raise _unexpected(host, entry)
    return document


def _unexpected(host: Host, entry: JsonObject | None) -> Conflict:
    return Conflict(
        f"The file of {host.title} was left as it is: it is JSON, but not of the shape that the host reads.",
        code="host_file_unexpected",
        field="file",
        fix=_by_hand(host, entry),
    )


def _by_hand(host: Host, entry: JsonObject | None) -> str:
    if entry is None:
        return f"Take {SERVER_NAME!r} out of {host.section!r} by hand."
    return f"Put this in by hand: {json.dumps({host.section: {SERVER_NAME: entry}}, ensure_ascii=False)}"


def _write(document: JsonObject, before: str) -> str:
    found = _INDENT.search(before)
    indent: str | int = found[1] if found else 2
    return json.dumps(document, indent=indent, ensure_ascii=False) + "\n"
