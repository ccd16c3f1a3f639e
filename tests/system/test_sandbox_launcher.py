"""The launcher's border: only the two agreed requests do anything, and nothing a caller sends ends it."""

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crank.domain.json import dumps, loads_strict
from crank.domain.profile import Limits
from crank.sandbox.frames import Frame, FrameReader
from crank.sandbox.link import LauncherLink, launch, rehearse
from crank.sandbox.plan import Ground, Plan, to_json

pytestmark = pytest.mark.system

_GROUND = Ground("/nowhere", "/opt/python/bin/python3.11", "3.11", "/opt/site", (), False, (), ())
_PLAN = Plan("s1", _GROUND, (), Limits())


@pytest.fixture(scope="module")
def link() -> Iterator[LauncherLink]:
    """Give a launcher."""
    link = launch()
    yield link
    link.close()


def _answer(link: LauncherLink, request: bytes, *folders: int) -> Frame | None:
    """Send raw bytes as a request; return the first frame on its channel, None when it is closed without one."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            socket.send_fds(link.socket, [request], [theirs.fileno(), *folders])
        ours.settimeout(30)
        reader = FrameReader({"R": 1 << 16, "F": 1 << 16})
        while chunk := ours.recv(1 << 16):
            frames = reader.feed(chunk)
            if frames:
                return frames[0]
    return None


@pytest.mark.parametrize(
    "request_",
    [
        b"{",
        b"[]",
        b'{"kind": "rehearse", "kind": "open"}',
        b'{"kind": "shell", "argv": ["sh"]}',
        b'{"kind": "rehearse", "more": 1}',
        b'{"kind": "open"}',
        b'{"kind": "open", "plan": {}}',
        dumps({"kind": "open", "plan": to_json(_PLAN), "rootfs": "/"}).encode(),
        b"\xff" * 1_000,
        b"[" * 10_000,
    ],
)
def test_other_requests_are_refused(link: LauncherLink, request_: bytes) -> None:
    """What is not one of the two agreed requests is refused, and the launcher goes on."""
    frame = _answer(link, request_)
    assert frame is None or frame.kind == "F"
    assert link.alive
    rehearse(link)


def _refusal(link: LauncherLink, plan: Plan) -> str:
    frame = _answer(link, dumps({"kind": "open", "plan": to_json(plan)}).encode())
    assert frame is not None
    assert frame.kind == "F"
    told: dict[str, Any] = loads_strict(frame.payload)
    return str(told["code"])


def test_only_layers_beneath_the_named_places_are_opened(tmp_path: Path) -> None:
    """What a module is imported from was named when the launcher started; no link and no other way leads further."""
    named, elsewhere = tmp_path / "named", tmp_path / "elsewhere"
    for folder in (named, elsewhere):
        folder.mkdir()
    (named / "way").symlink_to(elsewhere)
    link = launch(roots=[named])
    try:
        for path in (elsewhere, named / "way", named / ".." / "elsewhere", Path("/etc/shadow")):
            layers = (("/srv/module", str(path)),)
            ground = replace(_GROUND, root=None, layers=layers, paths=("/srv/module",))
            assert _refusal(link, replace(_PLAN, ground=ground)) == "folder_not_allowed"
        ground = replace(_GROUND, root=None, layers=(("/srv/module", str(named / "gone")),), paths=("/srv/module",))
        assert _refusal(link, replace(_PLAN, ground=ground)) == "folder_missing"
    finally:
        link.close()


def test_only_profiles_beneath_the_named_places_are_opened(tmp_path: Path) -> None:
    """A launcher that was told where profiles lie opens no other folder as a root, by whatever way it is named."""
    roots, outside = tmp_path / "roots", tmp_path / "outside"
    for folder in (roots, outside):
        (folder / "opt").mkdir(parents=True)
    (roots / "link").symlink_to(outside)
    link = launch(roots=[roots])
    try:
        for path in (outside, roots / "link", roots / "../outside", Path("/")):
            plan = replace(_PLAN, ground=replace(_GROUND, root=str(path)))
            assert _refusal(link, plan) == "folder_not_allowed"
        inside = replace(_PLAN, ground=replace(_GROUND, root=str(roots)))
        assert _refusal(link, inside) == "layer_interpreter"
    finally:
        link.close()


def test_a_request_brings_one_descriptor(link: LauncherLink, tmp_path: Path) -> None:
    """A folder that a caller sends along is not used: the launcher opens what it shows itself."""
    folder = os.open(tmp_path, os.O_RDONLY)
    try:
        assert _answer(link, dumps({"kind": "open", "plan": to_json(_PLAN)}).encode(), folder) is None
    finally:
        os.close(folder)
    rehearse(link)


def test_a_request_without_a_channel_is_dropped(link: LauncherLink) -> None:
    """A request that brings no descriptor has nobody to answer, and harms nobody."""
    link.socket.send(b'{"kind": "rehearse"}')
    rehearse(link)


def test_the_launcher_shows_no_paths(link: LauncherLink) -> None:
    """Neither its command line nor its environment tells where anything lies."""
    pid = link.process.pid
    assert Path(f"/proc/{pid}/cmdline").read_bytes().strip(b"\0") == b"crank-launcher"
    assert Path(f"/proc/{pid}/environ").read_bytes() == b""


def test_the_launcher_holds_few_descriptors(link: LauncherLink) -> None:
    """After sessions have come and gone it holds its three streams and its link."""
    rehearse(link)
    deadline = time.monotonic() + 20
    while len(os.listdir(f"/proc/{link.process.pid}/fd")) > 5:
        # The last supervisor has answered, and is being reaped.
        assert time.monotonic() < deadline
        time.sleep(0.01)
