"""Every hostile job through the public API of a real node: each ends for its stated reason, the host's canary is
untouched, its neighbours and the jobs after it are right, and the node works on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.attacks import judge
from tests.attacks.api_arena import Answers, ApiArena
from tests.attacks.canary import canaries
from tests.attacks.case import Case, Pair
from tests.attacks.cases import ALL
from tests.attacks.pairs import PAIRS
from tests.attacks.profiles import make_source
from tests.attacks.traces import Traces
from tests.support.node import Node, running_node

pytestmark = [pytest.mark.attacks, pytest.mark.system, pytest.mark.timeout(600), pytest.mark.xdist_group("attacks")]

_LANES = 3
# One job for each profile that the cases use: python-core, python-docs, and the two of the tests.
_ONE_OF_EACH = (
    judge.NEXT,
    replace(judge.NEXT, api_only=True),
    replace(judge.NEXT, programs=True),
    replace(judge.NEXT, limits={"inodes": 100}),
)


@dataclass(frozen=True, slots=True)
class Fought:
    """What was seen of all cases, and of the node before and after them."""

    wrongs: dict[str, list[str]]
    before: Traces
    after: Traces
    grown_bytes: int
    answers_sec: list[float]
    node: Node


@pytest.fixture(scope="module")
def fought(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fought]:
    """Run every case on one node, several at a time: a later one would see what an earlier one left."""
    place = tmp_path_factory.mktemp("attacks")
    environment = {
        "CRANK_PROFILES_SOURCE": str(make_source(place / "profiles")),
        "CRANK_WORKER_SLOTS": str(2 * _LANES),
    }
    with running_node(place / "home", environment) as node, canaries(_LANES) as lanes, Answers(node) as answers:
        arena = ApiArena(node, lanes)
        # What the worker loads for its first jobs, and what it keeps ready, is no growth.
        before, memory = arena.warm(_ONE_OF_EACH), arena.worker_memory_bytes()
        wrongs = arena.all_wrongs(ALL, PAIRS)
        after, grown = arena.settled(before), arena.worker_memory_bytes() - memory
        yield Fought(wrongs, before, after, grown, answers.took_sec, node)


@pytest.mark.parametrize("case", [*ALL, *PAIRS], ids=lambda case: case.name)
def test_a_hostile_job_harms_itself_alone(fought: Fought, case: Case | Pair) -> None:
    """The attack ends as it should, canary and neighbour are untouched, and so is the job after it."""
    assert fought.wrongs[case.name] == []


def test_nothing_is_left_on_the_host(fought: Fought) -> None:
    """After all of them there is no process, mount, group, descriptor or kernel object more than before."""
    assert not fought.after.has_more_than(fought.before, connections=8), (fought.after, fought.before)


def test_the_workers_memory_stays_flat(fought: Fought) -> None:
    """After some 300 hostile jobs in three lanes the worker holds no more than 64 MiB more than before."""
    # One case alone may cost 32 MiB; an allocator keeps some of what several at a time needed.
    assert fought.grown_bytes <= 2 * judge.GROWTH_BYTES


def test_the_node_answered_all_the_time(fought: Fought) -> None:
    """Under attack the API went on answering: half the answers within half a second, and no long silence."""
    took = sorted(fought.answers_sec)
    assert len(took) > 10
    assert took[len(took) // 2] < 0.5
    # Storms leave two cores little, and other tests run beside them: how long an answer may take is for `make bench`.
    assert took[-1] < 20


def test_the_nodes_secrets_are_its_owners(fought: Fought) -> None:
    """The secret is where only its owner reads it, and the node is ready."""
    info = fought.node.info()
    assert fought.node.client().ready()["ready"]
    assert Path(info["token_file"]).stat().st_mode & 0o077 == 0
