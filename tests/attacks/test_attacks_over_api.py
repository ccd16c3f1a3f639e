"""Hostile jobs through the public API of a real node: each ends for its stated reason, its neighbours are
right, and the node works on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks import cases
from tests.support.node import Node, running_node

pytestmark = [pytest.mark.system, pytest.mark.timeout(300), pytest.mark.xdist_group("attacks-api")]

# One of each group, and all that once reached beyond their own job.
CHOSEN = ("A04", "A13", "B01", "B03", "B07", "C01", "D01", "D04", "E01", "F01", "F06", "H01", "I01", "J01")


def every_case() -> list[cases.Case]:
    """Return the cases of the chosen groups that need no odd limits."""
    found = []
    for value in vars(cases).values():
        if isinstance(value, tuple):
            found += [case for case in value if isinstance(case, cases.Case) and case.name.startswith(CHOSEN)]
    return [case for case in {entry.name: entry for entry in found}.values() if set(case.limits) <= {"wall_sec"}]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Give one node for all cases: a later one would see what an earlier one left."""
    with running_node(tmp_path_factory.mktemp("attacks") / "home") as running:
        yield running


def test_the_cases_are_there() -> None:
    """The list is not empty by accident."""
    assert len(every_case()) > 20


@pytest.mark.parametrize("case", every_case(), ids=lambda case: case.name.replace(" ", "-"))
def test_a_hostile_job_harms_itself_alone(node: Node, case: cases.Case) -> None:
    """The attack ends as it should, a neighbour that runs beside it is right, and so is the next job."""
    api = node.client()
    body = {
        "code": case.code,
        "env_profile": "python-docs" if case.programs else "python-core",
        "constraints": {"timeout_sec": case.limits.get("wall_sec", 30)},
    }
    attack = api.submit(body).json()["job_id"]
    neighbour = api.submit({"code": "print(sum(range(1000)))"}).json()["job_id"]
    ended = api.ended(attack, deadline_sec=90)
    assert ended["end"]["reason"] in case.reasons, ended["end"]
    if case.result is not cases.ANY:
        assert ended["result"] == case.result
    assert api.ended(neighbour)["stdout"] == "499500\n"
    after = api.submit({"code": "import os; print(sorted(os.listdir('/scratch')), sorted(os.listdir('/out')))"})
    assert api.ended(after.json()["job_id"])["stdout"] == "[] []\n"


def test_the_host_is_as_before(node: Node, tmp_path: Path) -> None:
    """After all of them the node still answers, and its secret is where only its owner reads it."""
    info = node.info()
    assert node.client().ready()["ready"]
    assert Path(info["token_file"]).stat().st_mode & 0o077 == 0
