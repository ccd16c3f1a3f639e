"""Hostile jobs in the real sandbox, below the API: each ends as it must, and nothing and nobody else is touched.

After every case by itself: the canary untouched, no process, mount, group or descriptor more than before, the
worker's memory flat, the neighbour and the next job right. An ordinary user runs all of it; root, which the
attacks over the API had as their host, runs all of it in the soak.
"""

import asyncio

import pytest

from crank.domain.outcome import Reason
from tests.attacks.arena import Arena
from tests.attacks.case import Case, Pair
from tests.attacks.cases import ON_RUNNER
from tests.attacks.pairs import PAIRS

# One process for all of them: what an ordinary user runs is run once, and bombs do not meet bombs.
pytestmark = [pytest.mark.attacks, pytest.mark.system, pytest.mark.timeout(600), pytest.mark.xdist_group("attacks")]


@pytest.mark.soak
@pytest.mark.parametrize("case", ON_RUNNER, ids=lambda case: case.name)
async def test_attack(case: Case, arena: Arena) -> None:
    """A hostile job ends as it must, leaves nothing, and touches neither canary, neighbour nor next job."""
    assert await arena.wrongs(case) == []


@pytest.mark.soak
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
async def test_two_jobs(pair: Pair, arena: Arena) -> None:
    """What one job leaves, holds or shows does not reach another."""
    assert await arena.pair_wrongs(pair) == []


@pytest.mark.parametrize("case", [*ON_RUNNER, *PAIRS], ids=lambda case: case.name)
def test_attack_without_privilege(case: Case | Pair, rootless: dict[str, list[str]]) -> None:
    """The same holds where neither the worker nor the launcher is root and no control group counts."""
    assert rootless[case.name] == []


async def test_a_hundred_jobs_at_once(arena: Arena) -> None:
    """D18: many sandboxes opened together all stand, run and go."""
    job = Case("V04 one of many", "import os\nos.getpid() > 1")
    ended = await asyncio.gather(*(arena.run(job) for _ in range(100)))
    assert {(outcome.end.reason, outcome.result) for outcome, _ in ended} == {(Reason.EXITED, True)}
    assert arena.link.alive
