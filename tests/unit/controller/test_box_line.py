"""What a steward says on its line: taken in order, whatever its size, and without keeping the loop."""

import json
import threading
from typing import Any

import pytest

from crank.controller import box_line
from crank.controller.box_call import BoxCall
from crank.controller.box_line import BoxLine
from crank.domain.ids import LOCAL_TENANT, SessionId
from crank.domain.json import loads_strict
from tests.support.desk import open_desk


async def test_large_words_are_read_beside_the_loop(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result in parts is put together and read in a thread; words keep their order, and nonsense is dropped."""
    threads: list[int] = []

    def read(octets: bytes) -> Any:
        if len(octets) > 200_000:
            threads.append(threading.get_ident())
        return loads_strict(octets)

    monkeypatch.setattr(box_line, "loads_strict", read)
    async with open_desk(tmp_path) as desk:
        line = BoxLine(desk, LOCAL_TENANT, SessionId("s"), {})
        call = line._calls[7] = BoxCall()
        large = json.dumps({"id": 7, "event": {"type": "result", "bundle": [{}] * 100_000}})
        half = len(large) // 2
        for word in (
            {"id": 7, "event": {"n": 1}},
            {"id": 7, "part": large[:half], "last": False},
            {"id": 7, "part": large[half:], "last": True},
            {"id": "7", "event": {"n": 2}},
            {"id": 7, "event": {"n": 3}},
        ):
            await line._hear(json.dumps(word))
        await line._hear("no word")
        heard = [event for event, _ in call.events]
    assert (heard[0], heard[2:]) == ({"n": 1}, [{"n": 3}])
    assert heard[1]["bundle"] == [{}] * 100_000
    assert threads
    assert threading.get_ident() not in threads
