"""Hostile jobs on the tier without namespaces: what it promises holds, as root and as an ordinary user.

The whole list of attacks runs in the soak, but for what `left_out_bare` names with its reason; the cases that
are this tier's own run always, by an ordinary user, whose jobs have the worker's own account: the hardest place.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.bare_arena import EVERY
from tests.attacks.case import Case, Pair
from tests.attacks.cases import ON_RUNNER
from tests.attacks.cases_bare import BARE_CASES
from tests.attacks.conftest import ORDINARY_ID, REPO, usable_by_all
from tests.attacks.left_out_bare import LEFT_OUT_BARE
from tests.attacks.pairs import PAIRS

pytestmark = [pytest.mark.attacks, pytest.mark.system, pytest.mark.timeout(900), pytest.mark.xdist_group("attacks")]


def _run(source: Path, rootfs: Path, which: str, python: str, account: dict[str, object]) -> dict[str, list[str]]:
    answer = subprocess.run(
        [python, "-B", "-m", "tests.attacks.bare_arena", str(rootfs), which],
        cwd=source,
        env={"PYTHONPATH": f"{source}:{source / 'src'}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=880,
        **account,  # type: ignore[call-overload]
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    # The runner logs beside what the cases say.
    told = [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("{")]
    return {entry["name"]: entry["wrongs"] for entry in told}


@pytest.fixture(scope="module")
def ordinary(ordinary_source: Path, rootfs: Path, request: pytest.FixtureRequest) -> Iterator[dict[str, list[str]]]:
    """Run the cases as an ordinary user; give what was wrong with each."""
    which = "all" if "soak" in (request.config.option.markexpr or "") else "own"
    if os.geteuid() != 0:
        yield _run(ordinary_source, rootfs, which, sys.executable, {})
        return
    python = usable_by_all()
    if python is None:
        pytest.skip("no interpreter of version 3.11 or newer is open to an ordinary user here")
    account: dict[str, object] = {"user": ORDINARY_ID, "group": ORDINARY_ID, "extra_groups": []}
    yield _run(ordinary_source, rootfs, which, python, account)


@pytest.fixture(scope="module")
def as_root(rootfs: Path) -> dict[str, list[str]]:
    """Run every case with the account that root gives to jobs; give what was wrong with each."""
    if os.geteuid() != 0:
        pytest.skip("only root can give jobs an account of their own")
    return _run(REPO, rootfs, "all", sys.executable, {})


@pytest.mark.parametrize("case", BARE_CASES, ids=lambda case: case.name)
def test_attack_on_the_tiers_own_walls(case: Case, ordinary: dict[str, list[str]]) -> None:
    """What only Landlock, the filter and descent keep is kept, also between processes of one account."""
    assert ordinary[case.name] == []


@pytest.mark.soak
@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.name)
def test_every_attack_without_privilege(case: Case | Pair, ordinary: dict[str, list[str]]) -> None:
    """Every attack that is not left out ends as it must, without namespaces, privilege or a control group."""
    assert ordinary[case.name] == []


@pytest.mark.soak
@pytest.mark.parametrize("case", EVERY, ids=lambda case: case.name)
def test_every_attack_as_root(case: Case | Pair, as_root: dict[str, list[str]]) -> None:
    """The same holds where the worker was started as root."""
    assert as_root[case.name] == []


def test_what_is_left_out_exists() -> None:
    """The published list names attacks that there are, each with a reason."""
    assert set(LEFT_OUT_BARE) <= {case.name for case in ON_RUNNER} | {pair.name for pair in PAIRS}
    assert all(LEFT_OUT_BARE.values())
