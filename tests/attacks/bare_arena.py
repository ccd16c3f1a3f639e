"""Runs hostile cases on the tier without namespaces, as a program: `python -m tests.attacks.bare_arena ROOTFS WHICH`.

WHICH is `own` for the cases that are this tier's, `all` for every case but those that are left out. One JSON
line for each case tells what was wrong with it.
"""

import asyncio
import json
import sys
from pathlib import Path

from crank.domain.isolation import Tier
from crank.sandbox.link import launch
from crank.sandbox.tiers import LandlockRunner
from tests.attacks import judge
from tests.attacks.arena import Arena
from tests.attacks.canary import canaries
from tests.attacks.case import Case, Pair
from tests.attacks.cases import ON_RUNNER
from tests.attacks.cases_bare import BARE_CASES
from tests.attacks.left_out_bare import LEFT_OUT_BARE
from tests.attacks.pairs import PAIRS

_ALL: list[Case | Pair] = [*BARE_CASES, *ON_RUNNER, *PAIRS]
EVERY = tuple(case for case in _ALL if case.name not in LEFT_OUT_BARE)


async def _wrongs(arena: Arena, case: Case | Pair) -> list[str]:
    return await (arena.wrongs(case) if isinstance(case, Case) else arena.pair_wrongs(case))


async def _main(rootfs: Path, cases: tuple[Case | Pair, ...]) -> None:
    link = launch(tier=Tier.LANDLOCK)
    try:
        runner = LandlockRunner(link)
        await runner.start()
        with canaries(1) as (canary,):
            arena = Arena(runner, link, rootfs, canary, following=judge.NEXT_BARE)
            await arena.warm()
            for case in cases:
                print(json.dumps({"name": case.name, "wrongs": await _wrongs(arena, case)}), flush=True)
        await runner.stop()
    finally:
        link.close()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), BARE_CASES if sys.argv[2] == "own" else EVERY))
