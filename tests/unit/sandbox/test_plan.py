"""The launcher's one request is read strictly: what is not exactly as agreed is refused."""

import json
from dataclasses import replace
from typing import Any

import pytest

from crank.domain.profile import Limits
from crank.errors import ProtocolError
from crank.sandbox.plan import Plan, from_json, to_json

_PLAN = Plan(
    session="s1",
    python="/opt/python/bin/python3.11",
    version="3.11",
    site="/opt/site",
    processes=True,
    preimports=("json", "xml.sax"),
    mounts=("docs",),
    devices=("/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap1"),
    limits=Limits(),
)


def test_a_plan_survives_the_wire() -> None:
    """Written and read again, a plan is the same."""
    assert from_json(json.loads(json.dumps(to_json(_PLAN)))) == _PLAN


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("session", "../x"),
        ("session", ""),
        ("python", "opt/python"),
        ("python", "/opt/../etc"),
        ("python", "/opt//x"),
        ("version", "2.7"),
        ("site", 5),
        ("processes", 1),
        ("processes", "true"),
        ("preimports", ["os;import x"]),
        ("preimports", "json"),
        ("preimports", ["json", "json"]),
        ("mounts", ["Docs"]),
        ("mounts", [".."]),
        ("mounts", [f"m{n}" for n in range(17)]),
        ("devices", ["/dev/../etc/shadow"]),
        ("devices", ["/etc/shadow"]),
        ("limits", {}),
        ("limits", None),
    ],
)
def test_other_values_are_refused(field: str, value: Any) -> None:
    """No field takes anything but its own form."""
    with pytest.raises(ProtocolError):
        from_json({**to_json(_PLAN), field: value})


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "60", None, 10**12])
def test_limits_stay_in_range(value: Any) -> None:
    """A limit that is absent, absurd or of another kind never reaches the sandbox."""
    source = to_json(replace(_PLAN))
    source["limits"]["wall_sec"] = value
    with pytest.raises(ProtocolError):
        from_json(source)


def test_fields_are_exactly_those_agreed() -> None:
    """One field more or less is refused."""
    with pytest.raises(ProtocolError):
        from_json({**to_json(_PLAN), "rootfs": "/"})
    with pytest.raises(ProtocolError):
        from_json({name: value for name, value in to_json(_PLAN).items() if name != "site"})
