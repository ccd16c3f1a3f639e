"""`crank node invite|register|list|forget`: machines that work for this node's controller, seen from here."""

import shlex
from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlsplit

from cyclopts import Parameter

from crank.bootstrap.node import node_info
from crank.cli.exit_codes import ExitCode
from crank.cli.key import duration_sec
from crank.cli.reach import ask
from crank.cli.show import print_json, print_rows, say
from crank.client import AsyncClient, Node
from crank.config import load
from crank.config.values import LOOPBACK

Json = Annotated[bool, Parameter(help="Print JSON.", negative=(), show_default=False)]
Name = Annotated[str | None, Parameter(help="What you call that machine; one is made otherwise.")]
Capability = Annotated[
    tuple[str, ...],
    Parameter(help="What its worker may offer: document.convert, document.*; may be repeated. Everything otherwise.", negative=()),
]
Address = Annotated[
    str | None, Parameter(help="Name or address by which that machine reaches this one; the one that this node is bound to otherwise.")
]


def invite(
    *,
    name: Name = None,
    capability: Capability = (),
    expires: Annotated[str, Parameter(help="How long the invite may be used, once: 15m, 12h.")] = "15m",
    pin: Annotated[
        bool,
        Parameter(
            help="Keep the certificate that comes first, so that the machine may come back by itself after a long absence.",
            negative=(), show_default=False,
        ),
    ] = False,
    address: Address = None,
    json: Json = False,
) -> int:  # fmt: skip
    """Print the one command that joins another machine to this node. It holds a secret that works once."""
    expires_sec = duration_sec(expires)

    async def inviting(client: AsyncClient) -> Node:
        return await client.nodes.invite(name, capabilities=capability, expires_sec=expires_sec, pins=pin)

    _show(ask(inviting), address, as_json=json)
    return ExitCode.OK


def register(
    *,
    thumbprint: Annotated[str, Parameter(help="What 'crank node thumbprint' printed on that machine: sha256:….")],
    name: Name = None,
    capability: Capability = (),
    address: Address = None,
    json: Json = False,
) -> int:
    """Let the machine join that has this certificate; the command that it prints holds no secret."""

    async def registering(client: AsyncClient) -> Node:
        return await client.nodes.register(thumbprint, name, capabilities=capability)

    _show(ask(registering), address, as_json=json)
    return ExitCode.OK


def _show(node: Node, address: str | None, *, as_json: bool) -> None:
    host, command = _command(node, address)
    if as_json:
        print_json({**node.document, "token": node.token, "command": command})
    else:
        print(command)
        say(f"paste that on the other machine; it becomes {node.node_id}, and may offer {', '.join(node.document['capabilities'])}")
        if node.token is not None:
            say("the secret in it works once, and is not shown again")
    if host in LOOPBACK:
        say("this node listens on loopback alone: set CRANK_BIND to an address that the other machine reaches")


def _command(node: Node, address: str | None) -> tuple[str, str]:
    """Return the host that the command names, and the command."""
    info, settings = node_info(load()), load()
    api, workers = urlsplit(info["api"]), urlsplit(info["workers_api"])
    named = next((each for each in settings.api_names.split(",") if each), None)
    # What is bound to every address has no address of its own.
    bound = None if settings.bind in {"0.0.0.0", "::"} else settings.bind  # noqa: S104 - compared, not bound
    host = address or bound or named or str(api.hostname)
    shown = f"[{host}]" if ":" in host else host
    words = ["crank", "node", "join", f"https://{shown}:{api.port}", "--workers", f"{shown}:{workers.port}"]
    for root in node.roots:
        words += ["--root", root]
    if node.token is None:
        return host, shlex.join(words)
    # Through a pipe, because every account of a machine sees the words of its commands.
    return host, f"echo {node.token} | {shlex.join(words)} --token -"


def list_nodes(*, json: Json = False) -> int:
    """List the machines that were invited, registered or joined, the forgotten ones too."""

    async def listing(client: AsyncClient) -> Sequence[Node]:
        return await client.nodes.list()

    nodes = ask(listing)
    if json:
        print_json({"nodes": [node.document for node in nodes]})
        return ExitCode.OK
    rows = [
        (
            node.name,
            node.node_id,
            _state(node),
            node.attestation,
            ", ".join(node.document["capabilities"]),
            node.document["machine"].get("host"),
            node.document["joined_at"],
        )
        for node in nodes
    ]
    print_rows(("NAME", "NODE", "STATE", "ATTESTATION", "MAY OFFER", "HOST", "JOINED"), rows)
    return ExitCode.OK


def _state(node: Node) -> str:
    if node.forgotten:
        return "forgotten"
    if node.connected:
        return "connected"
    return "away" if node.document["joined_at"] else "expected"


def forget(node: Annotated[str, Parameter(help="The node's name or id.")], /, *, json: Json = False) -> int:
    """Take a machine's right to be here: its worker is cut off, its invite ends, its name is free again."""

    async def forgetting(client: AsyncClient) -> Node:
        return await client.nodes.forget(node)

    gone = ask(forgetting)
    if json:
        print_json(gone.document)
    else:
        say(f"forgot {gone.name} ({gone.node_id})")
    return ExitCode.OK
