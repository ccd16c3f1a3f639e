"""The workloads of a node: which process of its machine gets which identity. For the node's owner."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from crank.client.link import Link
from crank.domain.json import JsonObject
from crank.errors import ProtocolError


@dataclass(frozen=True, slots=True)
class WorkloadEntry:
    """One registered workload."""

    workload_id: str
    spiffe_id: str
    selectors: tuple[str, ...]
    document: JsonObject = field(repr=False, default_factory=dict)


def parse_workload(body: Any) -> WorkloadEntry:
    """Read a workload's document. Raises ProtocolError when it is none."""
    try:
        selectors = tuple(str(selector) for selector in body["selectors"])
        return WorkloadEntry(str(body["workload_id"]), str(body["spiffe_id"]), selectors, dict(body))
    except (AttributeError, KeyError, TypeError, ValueError) as fault:
        raise ProtocolError("The node answered something that is not a workload.") from fault


class AsyncWorkloads:
    """`client.workloads` of an AsyncClient."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def add(self, path: str, selectors: Sequence[str], **more: Any) -> WorkloadEntry:
        """Register a workload.

        path  of its SPIFFE ID, such as agent/ci; `more` may hold ttl_sec, hint, dns_names, federates_with
        Raises InvalidRequest, Conflict (`entry_taken`, `hint_taken`), NotAllowed.
        """
        given = {name: value for name, value in more.items() if value is not None}
        body: JsonObject = {"path": path, "selectors": list(selectors), **given}
        _, document = await self._link.ask("POST", "/v1/workloads", json=body, retry=False)
        return parse_workload(document)

    async def list(self) -> Sequence[WorkloadEntry]:
        """Return what is registered, oldest first. Raises NotAllowed."""
        _, document = await self._link.ask("GET", "/v1/workloads")
        return tuple(parse_workload(entry) for entry in document["workloads"])

    async def remove(self, workload_id: str) -> WorkloadEntry:
        """Take an identity away. Raises NotFound, NotAllowed."""
        _, document = await self._link.ask("DELETE", f"/v1/workloads/{quote(workload_id, safe='')}")
        return parse_workload(document)


class Workloads:
    """`client.workloads` of a Client: every call promises what that of AsyncWorkloads promises."""

    def __init__(self, remote: AsyncWorkloads, wait_for: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._remote = remote
        self._wait_for = wait_for

    def add(self, path: str, selectors: Sequence[str], **more: Any) -> WorkloadEntry:
        """Register a workload."""
        entry: WorkloadEntry = self._wait_for(self._remote.add(path, selectors, **more))
        return entry

    def list(self) -> Sequence[WorkloadEntry]:
        """Return what is registered, oldest first."""
        entries: Sequence[WorkloadEntry] = self._wait_for(self._remote.list())
        return entries

    def remove(self, workload_id: str) -> WorkloadEntry:
        """Take an identity away."""
        removed: WorkloadEntry = self._wait_for(self._remote.remove(workload_id))
        return removed
