"""Identities: one to a session, inside what this host really has."""

import os

import pytest

from crank.errors import SandboxError
from crank.sandbox.namespaces import Slots, is_privileged, slot_base


@pytest.mark.parametrize(
    ("id_map", "first"),
    [
        ("0 0 4294967295", 200_000),
        ("0 100000 65536", 65_536 - 2_000),
        ("0 1000 1\n1 100000 300000", 200_000),
    ],
)
def test_slots_lie_in_what_is_mapped(id_map: str, first: int) -> None:
    """The usual range is used where it exists, the top of a smaller one where it does not."""
    assert slot_base(id_map) == first


def test_too_few_ids_are_named() -> None:
    """A container with one user id cannot give each job its own, and says so."""
    with pytest.raises(SandboxError, match="too few"):
        slot_base("0 1000 1")


def test_no_two_sessions_share_an_identity() -> None:
    """Two launchers on one machine never hand out the same id while both sessions run."""
    if not is_privileged():
        identity = Slots(privileged=False).claim()
        assert (identity.uid, identity.privileged) == (os.geteuid(), False)
        return
    first, second = Slots(privileged=True), Slots(privileged=True)
    claimed = [slots.claim() for slots in (first, second, first, second)]
    assert len({identity.uid for identity in claimed}) == 4
    assert 0 not in {identity.uid for identity in claimed}
    first.release(claimed[0])
    again = second.claim()
    assert again.uid not in {identity.uid for identity in claimed[1:]}
    for slots, identity in zip((second, second, first, second), (again, *claimed[1:]), strict=True):
        slots.release(identity)


def test_root_without_privilege_gets_no_identity() -> None:
    """The host's root is never a job's identity, also where root may do little."""
    if os.geteuid() != 0:
        pytest.skip("this account is not root")
    with pytest.raises(SandboxError) as fault:
        Slots(privileged=False).claim()
    assert fault.value.error_code == "layer_capabilities"
