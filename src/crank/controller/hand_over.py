"""Hand over: what a caller's names of mounts and handles mean. Nobody hands over more than they hold."""

from collections.abc import Sequence

from crank.controller.desk import Desk
from crank.controller.spend import look_up, may_call, note_refusal
from crank.domain.handle import Handle
from crank.domain.ids import TenantId
from crank.domain.job import Mount
from crank.domain.wanted import DraftMount
from crank.domain.wanted_handles import DraftHandle
from crank.errors import InvalidRequest, NotAllowed
from crank.ports import Transaction


def resolve_mounts(
    tx: Transaction, tenant: TenantId, wanted_mounts: Sequence[DraftMount], *, places: Sequence[str] = ()
) -> dict[str, Mount]:
    """Find the mounts that are meant, by the name under which they shall be seen. Raises NotAllowed.

    places  which field each came from; `mounts.0` and so on unless given
    """
    if not wanted_mounts:
        return {}
    known: dict[str, Mount] = {}
    for mount in tx.registry.mounts(tenant):
        known[mount.mount_id] = mount
        if mount.name:
            known[mount.name] = mount
    resolved: dict[str, Mount] = {}
    for position, wanted in enumerate(wanted_mounts):
        if wanted.source not in known:
            raise NotAllowed(
                f"There is no mount {wanted.source[:80]!r} that this credential may use.",
                code="mount_not_allowed",
                field=places[position] if places else f"mounts.{position}",
                fix="List mounts with GET /v1/mounts; the node's owner adds one with 'crank mount add'.",
            )
        resolved[wanted.name] = known[wanted.source]
    return resolved


async def hand_over(
    desk: Desk, *, tenant: TenantId, capability: str, drafts: Sequence[DraftHandle]
) -> tuple[Handle, ...]:
    """Make handles of what was asked for, for a job of this capability. Raises NotAllowed for what is not the caller's, InvalidRequest for a bad schema."""
    if not drafts:
        return ()
    await _check_granted(desk, drafts)
    for position, draft in enumerate(drafts):
        for schema in draft.right.constraints if draft.right is not None else ():
            problem = desk.schemas.check_schema(schema)
            if problem is not None:
                raise InvalidRequest(
                    f"The constraints of the handle {draft.name!r} are not a JSON Schema: {problem.cause}",
                    code="invalid_schema",
                    field=f"handles.{position}.constraints",
                    problems=[problem],
                )
    wanted = [(position, draft) for position, draft in enumerate(drafts) if draft.mount is not None]
    mounts = await look_up(
        desk,
        capability,
        lambda tx: resolve_mounts(
            tx,
            tenant,
            [DraftMount(draft.name, draft.mount or "") for _, draft in wanted],
            places=[f"handles.{position}.mount" for position, _ in wanted],
        ),
    )
    return tuple(
        Handle(draft.name, draft.kind, draft.right, mounts[draft.name].mount_id if draft.mount is not None else None)
        for draft in drafts
    )


async def _check_granted(desk: Desk, drafts: Sequence[DraftHandle]) -> None:
    """Refuse a handle for what the caller's token or key does not name. Whatever else it asks of a call, each call is asked anew."""
    for position, draft in enumerate(drafts):
        right = draft.right
        if right is None or may_call(desk, right.capability):
            continue
        await note_refusal(desk, "handle_not_granted", right.capability)
        raise NotAllowed(
            f"This credential does not allow {right.capability}, so it cannot be handed over.",
            code="handle_not_granted",
            field=f"handles.{position}.capability",
            fix="Hand over what your token or key names, or less.",
        )
