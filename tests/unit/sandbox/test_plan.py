"""The launcher's one request is read strictly: what is not exactly as agreed is refused."""

import json
from dataclasses import replace
from typing import Any

import pytest

from crank.domain.profile import Limits
from crank.errors import ProtocolError
from crank.sandbox.plan import Ground, Plan, from_json, to_json

_GROUND = Ground(
    root="/srv/profiles/core",
    python="/opt/python/bin/python3.11",
    version="3.11",
    site="/opt/site",
    programs=("pandoc",),
    processes=True,
    preimports=("json", "xml.sax"),
    devices=("/dev/nvidia0", "/dev/nvidia-caps/nvidia-cap1"),
)
_PLAN = Plan(session="s1", ground=_GROUND, mounts=(("docs", "/srv/My documents"),), limits=Limits())


def test_a_plan_survives_the_wire() -> None:
    """Written and read again, a plan is the same."""
    assert from_json(json.loads(json.dumps(to_json(_PLAN)))) == _PLAN


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("root", "relative"),
        ("root", "/a\0b"),
        ("root", "/" + "x" * 5_000),
        ("python", "opt/python"),
        ("python", "/opt/../etc"),
        ("python", "/opt//x"),
        ("version", "2.7"),
        ("site", 5),
        ("processes", 1),
        ("processes", "true"),
        ("programs", ["../sh"]),
        ("programs", ["/bin/sh"]),
        ("preimports", ["os;import x"]),
        ("preimports", "json"),
        ("preimports", ["json", "json"]),
        ("devices", ["/dev/../etc/shadow"]),
        ("devices", ["/etc/shadow"]),
    ],
)
def test_other_grounds_are_refused(field: str, value: Any) -> None:
    """No field of a ground takes anything but its own form."""
    source = to_json(_PLAN)
    source["ground"][field] = value
    with pytest.raises(ProtocolError):
        from_json(source)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("session", "../x"),
        ("session", ""),
        ("ground", None),
        ("mounts", [["Docs", "/x"]]),
        ("mounts", [["..", "/x"]]),
        ("mounts", [["docs", "x"]]),
        ("mounts", [["docs", "/x", "/y"]]),
        ("mounts", ["docs"]),
        ("mounts", [["docs", "/x"], ["docs", "/y"]]),
        ("mounts", [[f"m{n}", "/x"] for n in range(17)]),
        ("mounts", 5),
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
        from_json({name: value for name, value in to_json(_PLAN).items() if name != "session"})


_LAYERED = replace(
    _GROUND,
    root=None,
    python="/srv/a b/.py/bin/python3",
    site="/srv/a b/site",
    layers=(("/srv/a b", "/srv/a b"), ("/host/tmp/x", "/tmp/x")),
    paths=("/host/tmp/x", "/srv/a b/site"),
)


def test_a_ground_of_layers_survives_the_wire() -> None:
    """An author's module stands on folders of the host, at places that may have any name."""
    plan = replace(_PLAN, ground=_LAYERED)
    assert from_json(json.loads(json.dumps(to_json(plan)))) == plan


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("root", "/srv/profiles/core"),
        ("layers", []),
        ("layers", 5),
        ("layers", ["/srv"]),
        ("layers", [["/srv", "/srv", "/srv"]]),
        ("layers", [["/srv", "relative"]]),
        ("layers", [["/srv/../etc", "/etc"]]),
        ("layers", [["/proc/x", "/x"]]),
        ("layers", [["/usr", "/usr"]]),
        ("layers", [["/srv", "/a"], ["/srv", "/b"]]),
        ("layers", [["/srv", "/a"], ["/srv/b", "/b"]]),
        ("layers", [[f"/srv/{number}", "/a"] for number in range(65)]),
        ("python", "/srv/../bin/sh"),
        ("paths", ["srv"]),
        ("paths", "/srv"),
        ("paths", ["/a", "/a"]),
    ],
)
def test_other_layers_are_refused(field: str, value: Any) -> None:
    """No layer in another, none where the sandbox has something of its own, and never a root beside them."""
    source = to_json(replace(_PLAN, ground=_LAYERED))
    source["ground"][field] = value
    with pytest.raises(ProtocolError):
        from_json(source)


def test_a_root_takes_no_layers() -> None:
    """A profile is what was built, and nothing is laid over it."""
    source = to_json(_PLAN)
    source["ground"]["layers"] = [["/srv", "/srv"]]
    with pytest.raises(ProtocolError):
        from_json(source)


@pytest.mark.parametrize(
    "device", ["/dev/shm", "/dev/tty", "/dev/pts/0", "/dev/mem", "/dev/kvm", "/dev/sda", "/dev/nvidia0/x", "/dev/dri"]
)
def test_only_accelerators_are_devices(device: str) -> None:
    """A caller cannot have a job shown another part of /dev by calling it its device."""
    document = to_json(replace(_PLAN, ground=replace(_GROUND, devices=(device,))))
    with pytest.raises(ProtocolError):
        from_json(json.loads(json.dumps(document)))
