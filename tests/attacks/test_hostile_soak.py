"""The whole matrix, for hours if wanted: all attacks mixed, under the conditions that catch a pool at its worst."""

import os
import random
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.attacks import judge
from tests.attacks.api_arena import ApiArena
from tests.attacks.canary import Canary, canaries
from tests.attacks.case import Case
from tests.attacks.cases import ALL
from tests.attacks.pairs import PAIRS
from tests.attacks.profiles import make_source
from tests.attacks.traces import descendants, title
from tests.soak.stock import LATE_GROWTH_BYTES
from tests.support.node import Node, running_node, until

pytestmark = [
    pytest.mark.attacks,
    pytest.mark.soak,
    pytest.mark.system,
    pytest.mark.timeout(7200),
    pytest.mark.xdist_group("attacks-soak"),
]

_LANES = 4
_SEED = 20261123
_JOBS = 10_000
# What a job may have ended as when somebody else ended it.
_ENDED_FROM_OUTSIDE = {"cancelled", "worker_lost", "outcome_unknown", "sandbox_failed"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the profiles, those of the tests among them."""
    return make_source(tmp_path_factory.mktemp("soak") / "profiles")


@pytest.fixture
def node(source: Path, tmp_path: Path) -> Iterator[Node]:
    """Give a node of its own to every condition, with nothing parked yet."""
    environment = {"CRANK_PROFILES_SOURCE": str(source), "CRANK_WORKER_SLOTS": str(2 * _LANES)}
    with running_node(tmp_path / "home", environment) as node:
        yield node


@pytest.fixture
def lanes() -> Iterator[list[Canary]]:
    """Give a canary for each lane."""
    with canaries(_LANES) as made:
        yield made


def _right(arena: ApiArena, canary: Canary, count: int = 20) -> None:
    for _ in range(count):
        assert arena.judged(judge.NEXT, arena.run(judge.NEXT, canary), canary) == []


def test_every_attack_on_a_cold_pool(node: Node, lanes: list[Canary]) -> None:
    """N09: right after the node's start, when nothing is parked, every attack ends as it must."""
    wrongs = ApiArena(node, lanes).all_wrongs(ALL, PAIRS)
    assert {name: what for name, what in wrongs.items() if what} == {}


def test_every_attack_under_load(node: Node, lanes: list[Canary]) -> None:
    """N09: while other jobs take every processor and every slot, every attack still ends as it must."""
    arena, over = ApiArena(node, lanes), threading.Event()
    busy = Case("V14 busy", "import hashlib\nfor n in range(400_000):\n    hashlib.sha256(bytes(64)).digest()\n'busy'", result="busy")
    wrong: list[str] = []

    def load() -> None:
        with canaries(1) as (canary,):
            while not over.is_set():
                wrong.extend(arena.judged(busy, arena.run(busy, canary), canary))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        # A deadline that is missed by another job's work is no fault of the wall: time is judged at rest.
        wrongs = arena.all_wrongs(ALL, PAIRS)
    finally:
        over.set()
        thread.join()
    assert wrong == []
    late = " s instead of "
    assert {name: what for name, what in wrongs.items() if [one for one in what if late not in one]} == {}


def test_every_attack_cancelled_midway(node: Node, lanes: list[Canary]) -> None:
    """N09: an attack that is cancelled at a moment of chance leaves nothing, and the job after it is right."""
    arena, chance = ApiArena(node, lanes), random.Random(_SEED)
    before = arena.warm([judge.NEXT, replace(judge.NEXT, programs=True), replace(judge.NEXT, limits={"inodes": 100})])
    canary = lanes[0]
    for case in ALL:
        job = arena.submit(case, canary)
        threading.Event().wait(chance.choice([0, 0.005, 0.02, 0.1]))
        arena.api.http.post(f"/v1/jobs/{job}/cancel")
        reason = arena.ended(job)["end"]["reason"]
        assert reason in {*case.reasons, *_ENDED_FROM_OUTSIDE}, (case.name, reason)
        assert canary.wrongs() == [], case.name
    _right(arena, canary)
    assert not arena.settled(before).has_more_than(before)


@pytest.mark.parametrize("name", ["crank-zygote", "crank-launcher", "worker"])
def test_every_attack_while_its_makers_are_killed(node: Node, lanes: list[Canary], name: str) -> None:
    """N09: with zygotes, launcher or worker killed again and again, no attack gains anything and the node comes back."""
    api = node.client()
    chance, arena = random.Random(_SEED), ApiArena(node, lanes)
    for case in chance.sample(ALL, 60):
        job = arena.submit(case, lanes[0])
        (worker, *_) = until(lambda: node.info().get("worker_pids"), what="a worker")
        found = [worker] if name == "worker" else [pid for pid in descendants(worker) if title(pid) == name]
        for pid in found[:1]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        reason = arena.ended(job)["end"]["reason"]
        assert reason in {*case.reasons, *_ENDED_FROM_OUTSIDE}, (case.name, reason)
        assert lanes[0].wrongs() == [], case.name
        until(lambda: api.ready().get("ready"), what="the node to be ready")
    _right(ApiArena(node, lanes), lanes[0])


def test_ten_thousand_hostile_jobs(node: Node, lanes: list[Canary]) -> None:
    """N09: ten thousand attacks of every kind, in an order of chance: no leak, no wrong result, the worker's memory flat."""
    arena, chance = ApiArena(node, lanes), random.Random(_SEED)
    quick = [case for case in ALL if case.limits.get("wall_sec", 0) != 1]
    before = arena.warm([judge.NEXT, replace(judge.NEXT, programs=True), replace(judge.NEXT, limits={"inodes": 100})])
    memory = [arena.worker_memory_bytes()]
    wrong: dict[str, list[str]] = {}
    for _ in range(_JOBS // (3 * 100)):
        found = arena.all_wrongs(chance.sample(quick, 100), [])
        wrong |= {name: what for name, what in found.items() if what}
        memory.append(arena.worker_memory_bytes())
    with ThreadPoolExecutor(_LANES) as pool:
        list(pool.map(lambda canary: _right(arena, canary), lanes))
    assert wrong == {}
    assert not arena.settled(before).has_more_than(before)
    # What an attack of half a million lists takes comes and goes; what stays shows in the lowest values alone.
    third = len(memory) // 3
    assert memory[-1] <= memory[0] + 2 * judge.GROWTH_BYTES, memory
    assert min(memory[-third:]) <= min(memory[third:-third]) + LATE_GROWTH_BYTES, memory
