"""What an agent is told of this node: its facts, gathered anew for each reader, and the page made of them."""

from collections.abc import Sequence

from crank.controller.desk import Desk
from crank.domain.capability import Capability
from crank.domain.ids import TenantId
from crank.domain.rules.instructions import Facts, instructions


async def instruct(desk: Desk, *, tenant: TenantId, version: str, tools: Sequence[tuple[str, str]] = ()) -> str:
    """Return the page of instructions in Markdown, for a tenant that proved itself: it names mounts and capabilities.

    version  of Crank
    tools    name and purpose of each MCP tool that the reader has
    """
    mounts = await desk.store.read(lambda tx: list(tx.registry.mounts(tenant)))
    facts = Facts(
        version=version,
        capabilities=offered(desk),
        profiles=desk.profiles,
        mounts=sorted(mount.name or mount.mount_id for mount in mounts),
        session_idle_sec=desk.policy.session_idle_sec,
        session_lifetime_sec=desk.policy.session_lifetime_sec,
        tools=tools,
    )
    return instructions(facts)


def offered(desk: Desk) -> Sequence[Capability]:
    """Return what connected workers offer, each name once per kind of processor, the newest version, in order."""
    found: dict[tuple[str, str, str], Capability] = {}
    for worker in desk.roster.live():
        for each in worker.known.capabilities:
            key = (each.name, str(each.accelerator), each.gpu_model or "")
            if key not in found or _newer(each, found[key]):
                found[key] = each
    return [found[key] for key in sorted(found)]


def _newer(one: Capability, other: Capability) -> bool:
    return [int(part) for part in one.version.split(".")] > [int(part) for part in other.version.split(".")]
