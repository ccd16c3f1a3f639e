"""The nodes beside a controller's own: invite, register, look, forget. For the node's owner."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from crank.client.link import Link
from crank.domain.json import JsonObject
from crank.errors import ProtocolError


@dataclass(frozen=True, slots=True)
class Node:
    """One node.

    attestation  how it proved itself when it joined last: none, thumbprint or join
    roots        SHA-256 of the trust domain's roots, as `sha256:…`; only just after it was invited or registered
    token        only just after it was invited, and never again
    """

    node_id: str
    name: str
    attestation: str
    connected: bool
    forgotten: bool
    roots: tuple[str, ...] = ()
    token: str | None = field(repr=False, default=None)
    document: JsonObject = field(repr=False, default_factory=dict)


def parse_node(body: Any) -> Node:
    """Read a node document. Raises ProtocolError when it is none."""
    try:
        return Node(
            node_id=str(body["node_id"]),
            name=str(body["name"]),
            attestation=str(body["attestation"]),
            connected=bool(body["connected"]),
            forgotten=body["forgotten_at"] is not None,
            roots=tuple(str(root) for root in body.get("roots") or ()),
            token=body.get("token"),
            document={name: value for name, value in body.items() if name != "token"},
        )
    except (AttributeError, KeyError, TypeError) as fault:
        raise ProtocolError("The node answered something that is not a node.") from fault


class AsyncNodes:
    """`client.nodes` of an AsyncClient."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def invite(
        self,
        name: str | None = None,
        *,
        capabilities: Sequence[str] = (),
        expires_sec: float | None = None,
        pins: bool = False,
    ) -> Node:
        """Make a join token for one machine. Never repeated by itself: a lost answer is a lost token.

        capabilities  patterns of what its worker may offer; none: everything
        pins          it may come back by its own certificate
        Raises InvalidRequest, Conflict (`node_name_taken`), NotAllowed.
        """
        body: JsonObject = {"capabilities": list(capabilities), "pins": pins}
        if name is not None:
            body["name"] = name
        if expires_sec is not None:
            body["expires_sec"] = expires_sec
        _, document = await self._link.ask("POST", "/v1/nodes/invites", json=body, retry=False)
        return parse_node(document)

    async def register(self, thumbprint: str, name: str | None = None, *, capabilities: Sequence[str] = ()) -> Node:
        """Let the machine join that holds the key of the certificate with this SHA-256 (`sha256:…`).

        Raises InvalidRequest, Conflict (`node_name_taken`, `thumbprint_taken`), NotAllowed.
        """
        body: JsonObject = {"thumbprint": thumbprint, "capabilities": list(capabilities)}
        if name is not None:
            body["name"] = name
        _, document = await self._link.ask("POST", "/v1/nodes", json=body, retry=False)
        return parse_node(document)

    async def list(self) -> Sequence[Node]:
        """Return every node beside the controller's own, oldest first, the forgotten ones too. Raises NotAllowed."""
        _, document = await self._link.ask("GET", "/v1/nodes")
        return tuple(parse_node(entry) for entry in document["nodes"])

    async def forget(self, node: str) -> Node:
        """Take a node's right to be here, by id or name, and cut its worker off. Raises NotFound, NotAllowed."""
        _, document = await self._link.ask("DELETE", f"/v1/nodes/{quote(node, safe='')}")
        return parse_node(document)


class Nodes:
    """`client.nodes` of a Client: every call promises what that of AsyncNodes promises."""

    def __init__(self, remote: AsyncNodes, wait_for: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._remote = remote
        self._wait_for = wait_for

    def invite(
        self,
        name: str | None = None,
        *,
        capabilities: Sequence[str] = (),
        expires_sec: float | None = None,
        pins: bool = False,
    ) -> Node:
        """Make a join token for one machine."""
        asked = self._remote.invite(name, capabilities=capabilities, expires_sec=expires_sec, pins=pins)
        node: Node = self._wait_for(asked)
        return node

    def register(self, thumbprint: str, name: str | None = None, *, capabilities: Sequence[str] = ()) -> Node:
        """Let the machine join that holds the key of a certificate."""
        node: Node = self._wait_for(self._remote.register(thumbprint, name, capabilities=capabilities))
        return node

    def list(self) -> Sequence[Node]:
        """Return every node, oldest first, the forgotten ones too."""
        nodes: Sequence[Node] = self._wait_for(self._remote.list())
        return nodes

    def forget(self, node: str) -> Node:
        """Forget a node, and cut its worker off."""
        gone: Node = self._wait_for(self._remote.forget(node))
        return gone
