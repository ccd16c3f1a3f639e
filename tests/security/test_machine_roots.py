"""Whom a joined machine believes is for its controller to say, proven by what it believed before: never for its worker."""

import asyncio
import dataclasses
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
import structlog

from crank.adapters.clock import SystemClock
from crank.bootstrap import leash
from crank.bootstrap.joining import JoinWanted, join
from crank.bootstrap.leash import Child
from crank.bootstrap.member import Member, as_member, member_dir, pem, read_chain
from crank.bootstrap.member_keeper import MemberFiles, _start
from crank.bootstrap.verifying import known_by_identity
from crank.config import Settings, load
from crank.controller.nodes import NodeWanted, forget, invite
from crank.controller.rotate_root import rotate_root
from crank.controller.tell_trust import on_trusted, tell_machine, unaware
from crank.domain.identity import make_spiffe_id
from crank.domain.ids import LOCAL_TENANT
from crank.domain.trust import RotationStep
from crank.errors import Conflict
from crank.wire import Trusted
from tests.support.desk import TRUST_DOMAIN, ScriptedWorker, open_desk
from tests.support.listeners import Listeners, authority, open_listeners
from tests.unit.api.conftest import CORE

# Says that it is ready; then at once what a worker said when its program still took roots from it, and much more.
LIAR = """
import json, socket, sys
end = socket.socket(fileno=int(sys.argv[1]))
planted = open(sys.argv[2]).read()
end.sendall(json.dumps({"capabilities": []}).encode() + b"\\n")
for line in ({"roots": planted}, {"ring": planted}, {"roots": planted, "sequence": 99}):
    end.sendall(json.dumps(line).encode() + b"\\n")
"""


@pytest.fixture
async def desk(tmp_path: Path):
    """Give a desk that issues with the authority of its listeners, and may change its root."""
    async with open_desk(tmp_path) as opened:
        issuer = authority(tmp_path / "identities" / "authority")
        issuer.ensure()
        yield dataclasses.replace(opened, authority=issuer, roots=issuer)


@pytest.fixture
async def node(desk, tmp_path: Path):
    """Give both listeners over TLS."""
    async with open_listeners(desk, tmp_path / "identities", issuer=desk.authority) as listeners:
        yield listeners


class Machine:
    """A machine that has joined: its settings, and what lies in its files."""

    def __init__(self, home: Path, member: Member) -> None:
        self.member = member
        self.settings: Settings = as_member(load({"home": home}, environment={}), member.trust_domain)
        self.files = MemberFiles(self.settings)

    @property
    def roots(self) -> list[list[bytes]]:
        """Return the roots in each of its folders."""
        return [read_chain(folder / "ca.pem") for folder in self.files.folders]

    @property
    def name(self) -> str:
        """Return its SPIFFE ID."""
        return str(make_spiffe_id(TRUST_DOMAIN, "node", self.member.node_id))


@pytest.fixture
async def machine(desk, node: Listeners, tmp_path: Path) -> Machine:
    """Give a machine that has joined."""
    home = tmp_path / "m"
    home.mkdir()
    invited = await invite(desk, tenant=LOCAL_TENANT, subject="local", wanted=NodeWanted(name="box"))
    wanted = JoinWanted(
        f"https://127.0.0.1:{node.api_port}", f"127.0.0.1:{node.workers_port}", invited.roots, invited.token
    )
    return Machine(home, await asyncio.to_thread(join, load({"home": home}, environment={}), wanted, SystemClock()))


def now(desk) -> list[bytes]:
    """Return the roots that the controller publishes."""
    return list(desk.authority.bundle().x509_authorities)


async def turn(desk, step: RotationStep) -> Any:
    """Take a step of the change to another root."""
    return await rotate_root(desk, step, force=False, subject="local")


# --- the worker's word ----------------------------------------------------------------------------


async def test_a_worker_that_was_taken_over_plants_no_root(
    desk, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it says on its leash, a root of its own beside the true one too, is a ring; then the controller's lie there."""
    planted = tmp_path / "planted.pem"
    planted.write_bytes(pem([*now(desk), *authority(tmp_path / "stranger").bundle().x509_authorities]))
    monkeypatch.setattr(leash, "BELL_PAUSE_SEC", 0.0)

    def spawn(*_: Any) -> Child:
        mine, its = socket.socketpair()
        command = [sys.executable, "-c", LIAR, str(its.fileno()), str(planted)]
        with its:
            return Child("member", subprocess.Popen(command, pass_fds=(its.fileno(),), start_new_session=True), mine)

    monkeypatch.setattr(Child, "spawn", spawn)
    async with asyncio.timeout(60):
        (child,) = await _start(machine.settings, machine.files)
        assert child._hearing is not None
        await child._hearing
        await child.stop(0)
        assert machine.roots == [now(desk)] * 2
        await machine.files.round()
        await turn(desk, RotationStep.PREPARE)
        machine.files.ring()
        await machine.files.round()
    assert machine.roots == [now(desk)] * 2
    assert len(now(desk)) == 2


async def test_no_worker_answers_for_a_machine(desk, machine: Machine) -> None:
    """All workers that are connected acknowledged, and the new root does not sign until the machine's own program has it."""
    worker = ScriptedWorker(desk, "w1", [CORE])
    await worker.connect()
    assert worker.live is not None
    await machine.files.round()
    prepared = await turn(desk, RotationStep.PREPARE)
    on_trusted(desk, worker.live, Trusted(prepared.status.sequence, 0))
    assert unaware(desk, prepared.status.sequence) == [machine.name]
    with pytest.raises(Conflict) as refused:
        await turn(desk, RotationStep.ACTIVATE)
    assert refused.value.error_code == "bundle_not_acknowledged"
    assert machine.name in refused.value.message
    machine.files.ring()
    await machine.files.round()
    assert machine.roots == [now(desk)] * 2
    await turn(desk, RotationStep.ACTIVATE)


async def test_a_worker_does_not_come_in_by_the_machines_door(desk, node: Listeners, machine: Machine) -> None:
    """The roots are told, and an acknowledgement is taken, at the machine's own certificate alone; and only a number is one."""
    machines, workers = member_dir(machine.settings), machine.settings.identity_dir
    answers = []
    for folder, has in ((workers, "9"), (machines, "x"), (machines, ""), (machines, "-1"), (machines, "9" * 30), (machines, "0")):
        context = known_by_identity(
            certificate_file=folder / "cert.pem", key_file=folder / "key.pem", ca_file=folder / "ca.pem"
        )
        async with httpx2.AsyncClient(verify=context) as client:
            asked = await client.get(f"https://127.0.0.1:{node.workers_port}/v1/trust", params={"has": has})
            answers.append(asked.status_code)
    assert answers == [403, 422, 422, 422, 422, 200]
    assert unaware(desk, 1) == [machine.name]


# --- who answers ----------------------------------------------------------------------------------


async def test_the_roots_come_from_a_proven_controller_alone(desk, machine: Machine, tmp_path: Path) -> None:
    """Whoever stands between, with an authority of the same name, tells the machine nothing, and hears nothing of it."""
    before = machine.roots
    stranger = authority(tmp_path / "stranger" / "authority")
    async with open_listeners(desk, tmp_path / "stranger", issuer=stranger) as impostor:
        where = member_dir(machine.settings) / "member.json"
        where.write_text(where.read_text().replace(machine.member.workers, f"127.0.0.1:{impostor.workers_port}"))
        with structlog.testing.capture_logs() as said:
            await machine.files.round()
    assert [one["event"] for one in said] == ["roots_not_taken"]
    assert "cannot prove" in said[0]["cause"]
    assert machine.roots == before
    assert unaware(desk, 99) == []


async def test_a_controller_that_was_revoked_is_believed_no_more(desk, machine: Machine) -> None:
    """What was taken back comes with the roots: the machine's program then refuses what its worker refuses."""
    await machine.files.round()
    own = machine.files._kept[member_dir(machine.settings)]
    controller = make_spiffe_id(TRUST_DOMAIN, "controller", "c1")
    assert not own.is_revoked(controller, [])
    trust = tell_machine(desk, make_spiffe_id(TRUST_DOMAIN, "node", "x"), has=0)
    own.believe(dataclasses.replace(trust, revoked_ids=[str(controller)]))
    machine.files.ring()
    with structlog.testing.capture_logs() as said:
        await machine.files.round()
    assert [one["event"] for one in said] == ["roots_not_taken"]


# --- who is waited for ----------------------------------------------------------------------------


async def test_a_machine_that_is_gone_is_not_waited_for(
    desk, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that missed three looks keeps nobody from changing the root, nor does one that was forgotten."""
    await machine.files.round()
    later = desk.authority.bundle().sequence + 1
    assert unaware(desk, later) == [machine.name]
    now_us = desk.clock.now_us()
    with monkeypatch.context() as passing:
        passing.setattr(type(desk.clock), "now_us", lambda _self: now_us + 190 * 1_000_000)
        assert unaware(desk, later) == []
    assert unaware(desk, later) == [machine.name]
    await forget(desk, tenant=LOCAL_TENANT, subject="local", node="box")
    assert unaware(desk, later) == []
