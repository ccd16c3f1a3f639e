"""The trust domains that a node is federated with: add, look, fetch anew, remove. For the node's owner."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from crank.client.link import Link
from crank.domain.json import JsonObject
from crank.errors import ProtocolError


@dataclass(frozen=True, slots=True)
class FederatedDomain:
    """One trust domain.

    believed  whether its bundle is believed now
    failure   why the last look at its publisher failed, None when it did not
    """

    trust_domain: str
    url: str
    profile: str
    believed: bool
    sequence: int | None
    failure: str | None
    document: JsonObject = field(repr=False, default_factory=dict)


def parse_federated(body: Any) -> FederatedDomain:
    """Read a federation document. Raises ProtocolError when it is none."""
    try:
        return FederatedDomain(
            trust_domain=str(body["trust_domain"]),
            url=str(body["url"]),
            profile=str(body["profile"]),
            believed=bool(body["believed"]),
            sequence=body["sequence"],
            failure=body["failure"],
            document=dict(body),
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise ProtocolError("The node answered something that is not a federation.") from fault


class AsyncFederation:
    """`client.federation` of an AsyncClient."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def add(self, trust_domain: str, url: str, **more: Any) -> FederatedDomain:
        """Federate with a trust domain whose bundle is published at `url`.

        more  profile, endpoint_id, bundle (the JSON value), ca_pem, private, stale_after_sec: as `POST /v1/federation`
        Raises InvalidRequest, Conflict (`federation_exists`), NotAllowed, UntrustedPeer, Unavailable.
        """
        body: JsonObject = {"trust_domain": trust_domain, "url": url, **more}
        _, document = await self._link.ask("POST", "/v1/federation", json=body, retry=False)
        return parse_federated(document)

    async def list(self) -> Sequence[FederatedDomain]:
        """Return every domain, by name. Raises NotAllowed."""
        _, document = await self._link.ask("GET", "/v1/federation")
        return tuple(parse_federated(entry) for entry in document["federation"])

    async def find(self, trust_domain: str) -> FederatedDomain:
        """Return one domain with its bundle. Raises NotFound, NotAllowed."""
        _, document = await self._link.ask("GET", _path(trust_domain))
        return parse_federated(document)

    async def own_bundle(self) -> JsonObject:
        """Return this node's own bundle, as others fetch it."""
        _, document = await self._link.ask("GET", "/trust-bundle")
        return dict(document)

    async def refresh(self, trust_domain: str) -> FederatedDomain:
        """Look at its publisher now; `failure` tells when that failed. Raises NotFound, NotAllowed."""
        _, document = await self._link.ask("POST", f"{_path(trust_domain)}/refresh", retry=False)
        return parse_federated(document)

    async def remove(self, trust_domain: str) -> FederatedDomain:
        """End a federation: nobody of that domain is believed any more. Raises NotFound, NotAllowed."""
        _, document = await self._link.ask("DELETE", _path(trust_domain))
        return parse_federated(document)


class Federation:
    """`client.federation` of a Client: every call promises what that of AsyncFederation promises."""

    def __init__(self, remote: AsyncFederation, wait_for: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._remote = remote
        self._wait_for = wait_for

    def add(self, trust_domain: str, url: str, **more: Any) -> FederatedDomain:
        """Federate with a trust domain whose bundle is published at `url`."""
        added: FederatedDomain = self._wait_for(self._remote.add(trust_domain, url, **more))
        return added

    def list(self) -> Sequence[FederatedDomain]:
        """Return every domain, by name."""
        found: Sequence[FederatedDomain] = self._wait_for(self._remote.list())
        return found

    def find(self, trust_domain: str) -> FederatedDomain:
        """Return one domain with its bundle."""
        found: FederatedDomain = self._wait_for(self._remote.find(trust_domain))
        return found

    def own_bundle(self) -> JsonObject:
        """Return this node's own bundle, as others fetch it."""
        bundle: JsonObject = self._wait_for(self._remote.own_bundle())
        return bundle

    def refresh(self, trust_domain: str) -> FederatedDomain:
        """Look at its publisher now."""
        found: FederatedDomain = self._wait_for(self._remote.refresh(trust_domain))
        return found

    def remove(self, trust_domain: str) -> FederatedDomain:
        """End a federation."""
        removed: FederatedDomain = self._wait_for(self._remote.remove(trust_domain))
        return removed


def _path(trust_domain: str) -> str:
    return f"/v1/federation/{quote(trust_domain, safe='')}"
