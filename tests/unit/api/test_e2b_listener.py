"""The E2B listener before any sandbox: what a stranger's request is answered, and what a sandbox may claim."""

import httpx2
import pytest

from crank.api.e2b import replies
from crank.api.e2b.app import build_e2b
from crank.api.e2b.control import _numbers
from crank.api.e2b.filesystem import entry
from crank.controller.boxes import Boxes
from crank.controller.desk import Desk
from crank.errors import ProtocolError, Unavailable


@pytest.mark.parametrize("expiration", ["9" * 5_000, "9" * 13, "-1", "1e9", "", "٣", "1\n", "1"])
@pytest.mark.parametrize("path", ["a.txt", "x" * 20_000])
async def test_a_signature_that_cannot_hold_is_refused(desk: Desk, expiration: str, path: str) -> None:
    """Whatever stands for its end, a URL that this node did not sign is answered with 401 and a sentence."""
    transport = httpx2.ASGITransport(app=build_e2b(Boxes(desk, modules={}, secret=b"s")))
    query = {"path": path, "signature": "v1_x", "signature_expiration": expiration}
    async with httpx2.AsyncClient(transport=transport, base_url="http://node.test") as client:
        for method in ("GET", "POST"):
            answer = await client.request(method, "/files", params=query)
            assert answer.status_code == 401, answer.text
            assert "signature" in answer.json()["message"]


@pytest.mark.parametrize("code", ["key_share_taken", "uploads_full", "sessions_full"])
def test_a_full_node_limits_its_callers(code: str) -> None:
    """E2B's clients learn by 429 that they may try again."""
    assert replies.status_of(Unavailable("It is full.", code=code)) == 429


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "1970-01-01T00:00:00"), (10**20, "9999-12-31T23:59:59"), (-(10**20), "0001-01-01T00:00:00")],
)
def test_a_files_time_never_fails_its_listing(seconds: int, written: str) -> None:
    """A file may claim any time; what no calendar has is written as the nearest that there is."""
    assert entry({"name": "a", "modified": [seconds, 7]}) == {"name": "a", "modifiedTime": f"{written}.000000007Z"}


@pytest.mark.parametrize("claimed", [None, "9" * 5_000, [], float("nan"), float("inf"), -1, 2**70])
def test_a_sandbox_measures_itself_in_numbers(claimed: object) -> None:
    """What a sandbox says of its own use is a number or a typed fault: its code can say anything."""
    honest = {"cpu_sec": 1.5, "memory_used": 3, "disk_used": 4, "disk_total": 5}
    assert _numbers({**honest, "more": "x"}) == honest
    with pytest.raises(ProtocolError):
        _numbers({**honest, "disk_used": claimed})
