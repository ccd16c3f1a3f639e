"""How `crank profile build` waits for the worker that offers what was built."""

from crank.cli.profile import until_changed
from crank.errors import Unavailable


async def test_a_worker_is_back_when_it_is_another_instance() -> None:
    """The old process, nobody and a node that does not answer are not what is waited for."""
    seen: list[str | Unavailable | None] = ["old", Unavailable("busy"), None, "new"]

    async def look() -> str | None:
        found = seen.pop(0)
        if isinstance(found, Unavailable):
            raise found
        return found

    assert await until_changed("old", look, limit_sec=30)
    assert seen == []


async def test_a_worker_that_stays_away_is_told() -> None:
    """The wait ends, and says that it was in vain."""

    async def look() -> str | None:
        return "old"

    assert not await until_changed("old", look, limit_sec=0.3)
