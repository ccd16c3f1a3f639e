"""The launcher's border: only the two agreed requests do anything, and nothing a caller sends ends it."""

import contextlib
import os
import resource
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
from tests.support.rootfs import make_build, make_rootfs

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


def test_a_machine_without_more_descriptors_refuses_sessions_and_ends_none(tmp_path: Path) -> None:
    """However few descriptors the launcher has left, a request is refused with a sentence or stands; it goes on serving."""
    build = make_build(make_rootfs(tmp_path / "rootfs"))
    ground = Ground(
        root=str(build.rootfs), python=build.python, version="3.11", site=build.site, programs=(), processes=False,
        preimports=(), devices=(),
    )  # fmt: skip
    link = launch()
    kept: list[socket.socket] = []
    try:
        kept += [_stand(link, replace(_PLAN, session=f"k{number}", ground=ground)) for number in range(2)]
        held = len(os.listdir(f"/proc/{link.process.pid}/fd"))
        unclaimed = _without_slots(link.process.pid)
        usual = resource.prlimit(link.process.pid, resource.RLIMIT_NOFILE)
        for more in range(28):
            resource.prlimit(link.process.pid, resource.RLIMIT_NOFILE, (held + more, usual[1]))
            frame = _answer(link, dumps({"kind": "open", "plan": to_json(replace(_PLAN, session=f"t{more}", ground=ground))}).encode())
            assert frame is None or frame.kind in ("F", "R")
            assert link.alive
        resource.prlimit(link.process.pid, resource.RLIMIT_NOFILE, usual)
        _stand(link, replace(_PLAN, session="again", ground=ground)).close()
        deadline = time.monotonic() + 20
        # A slot whose supervisor could not even begin is burnt: its claim stays.
        while _without_slots(link.process.pid) > unclaimed:
            assert time.monotonic() < deadline, "refused sessions left descriptors open"
            time.sleep(0.01)
        for channel in kept:
            channel.setblocking(False)
            with pytest.raises(BlockingIOError):
                channel.recv(1)
    finally:
        for channel in kept:
            channel.close()
        link.close()


def _without_slots(pid: int) -> int:
    """Count a process's descriptors that do not claim a slot."""
    table = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    claims = {f"socket:[{row[6]}]" for row in table if len(row) > 7 and row[7].startswith("@crank.sandbox.slot")}
    open_now = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            open_now.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    return sum(target not in claims for target in open_now)


def _stand(link: LauncherLink, plan: Plan) -> socket.socket:
    """Open a session and return its channel once it stands."""
    ours, theirs = socket.socketpair()
    with theirs:
        socket.send_fds(link.socket, [dumps({"kind": "open", "plan": to_json(plan)}).encode()], [theirs.fileno()])
    ours.settimeout(60)
    reader = FrameReader({"R": 1 << 16, "F": 1 << 16})
    while not (frames := reader.feed(ours.recv(1 << 16))):
        pass
    assert frames[0].kind == "R", frames[0]
    return ours


def test_a_descriptor_that_is_no_socket_is_refused(link: LauncherLink, tmp_path: Path) -> None:
    """A caller that passes a file where its channel should be harms nobody."""
    (tmp_path / "file").write_text("x")
    with open(tmp_path / "file", "rb") as file:
        socket.send_fds(link.socket, [b'{"kind": "rehearse"}'], [file.fileno()])
    rehearse(link)
