"""Looking into jobs and mounts page by page; a mount is looked into by a job, and its word is not believed blindly."""

import asyncio
import base64
import os

import pytest

from crank.controller import browse
from crank.controller.mounts import add
from crank.controller.submit import Submission, submit
from crank.domain.ids import LOCAL_TENANT
from crank.domain.outcome import End, Outcome, Reason, Stream
from crank.domain.rules.request import parse_mount_path
from crank.errors import InvalidRequest, NotAllowed, NotFound, Unavailable
from crank.wire import JobEvent, Output, Started
from tests.support.desk import ScriptedWorker, open_desk
from tests.unit.domain.rules.builders import CORE

READER = browse.Reader(LOCAL_TENANT, "agent")
OK = End(Reason.EXITED, exit_code=0)


@pytest.fixture
async def work(tmp_path):
    """Give a desk with a mount and a connected worker."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "state").mkdir()
    async with open_desk(tmp_path / "state") as desk:
        worker = ScriptedWorker(desk, "w1", [CORE])
        await worker.connect()
        await add(desk, tenant=LOCAL_TENANT, subject="t", path=str(tmp_path / "docs"), name="docs")
        yield desk, worker


async def _looked(desk, worker, looking, result, end=OK):
    """Let the worker answer the job that looks, and return what the looker got."""
    asking = asyncio.ensure_future(looking)
    lease = await worker.lease()
    await worker.finish(lease, Outcome(end, has_result=True, result=result))
    return lease, await asyncio.wait_for(asking, 10)


def _read(desk, **more):
    page = {"offset_bytes": 0, "length_bytes": 8, **more}
    return browse.read_mount(desk, READER, mount="docs", path="a/b.txt", **page)


async def test_a_mount_is_read_by_a_job(work):
    """The page comes out of a pure job over that mount alone, recorded under the reader's name."""
    desk, worker = work
    result = {"size_bytes": 20, "base64": base64.b64encode(b"12345678").decode()}
    lease, shown = await _looked(desk, worker, _read(desk), result)
    assert (shown["text"], shown["next_offset_bytes"], shown["size_bytes"]) == ("12345678", 8, 20)
    job = await desk.store.read(lambda tx: tx.jobs.find(LOCAL_TENANT, lease.job_id))
    assert (str(job.request.effects), [use.name for use in job.request.mounts]) == ("pure", ["looked-at"])
    rows = await desk.store.read(lambda tx: list(tx.records.page(job_id=lease.job_id, after=0, limit=9)))
    assert rows[0][1].subject == "agent"


@pytest.mark.parametrize(
    ("result", "kind", "code"),
    [
        ({"fault": "not_found"}, NotFound, "file_not_found"),
        ({"fault": "not_readable"}, InvalidRequest, "file_unreadable"),
        ({"size_bytes": "many", "base64": ""}, Unavailable, "mount_unseen"),
        ({"size_bytes": 1, "base64": "%%%"}, Unavailable, "mount_unseen"),
        ({}, Unavailable, "mount_unseen"),
        ("text", Unavailable, "mount_unseen"),
    ],
)
async def test_what_a_worker_says_is_checked(work, result, kind, code):
    """A fault is told as one, and an answer of another shape is no file."""
    desk, worker = work
    with pytest.raises(kind) as caught:
        await _looked(desk, worker, _read(desk), result)
    assert caught.value.error_code == code


async def test_a_page_is_never_longer_than_asked(work):
    """A worker that sends more than was asked for is cut."""
    desk, worker = work
    result = {"size_bytes": 20, "base64": base64.b64encode(b"x" * 20).decode()}
    _, shown = await _looked(desk, worker, _read(desk), result)
    assert shown["text"] == "x" * 8


async def test_a_job_that_fails_shows_nothing(work):
    """A look that ends badly is not taken for an empty folder."""
    desk, worker = work
    listing = browse.list_mount(desk, READER, mount="docs", path="", after="", limit=5)
    with pytest.raises(Unavailable):
        await _looked(desk, worker, listing, {"files": [], "more": False}, End(Reason.RAISED, exit_code=1))


async def test_a_mount_is_listed_by_pages(work):
    """Names come back as paths from the mount's top, and `next` continues after the last."""
    desk, worker = work
    entries = [{"name": "x.md", "kind": "file", "size_bytes": 3}, {"name": "y", "kind": "folder", "size_bytes": None}]
    listing = browse.list_mount(desk, READER, mount="docs", path="sub", after="sub/w", limit=2)
    lease, shown = await _looked(desk, worker, listing, {"files": entries, "more": True})
    assert [entry["path"] for entry in shown["files"]] == ["sub/x.md", "sub/y"]
    assert shown["next"] == "sub/y"
    job = await desk.store.read(lambda tx: tx.jobs.find(LOCAL_TENANT, lease.job_id))
    assert job.request.args["after"] == "w"


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../b", "a\x00b", "", "a//b", "./a", "a/.", "\udcff", "x" * 4_001])
async def test_no_path_leads_out(work, path):
    """A path that could act is refused before any job is made."""
    desk, _ = work
    with pytest.raises(InvalidRequest):
        await browse.read_mount(desk, READER, mount="docs", path=path, offset_bytes=0, length_bytes=1)


def _seen(folder, **args):
    """Run what a look's job runs, over a folder of this test."""
    found = {"args": args}
    exec(browse._LOOK.replace("/in/looked-at", os.path.realpath(folder)), found)
    return found["result"]


def test_every_name_that_is_listed_can_be_read_or_says_that_it_cannot(tmp_path):
    """Strange names are read by the name that the listing gives; one that is no Unicode is marked, and pages go past it."""
    names = [b"a\nb", b"tail. ", b" head", b"back\\slash", "e\u0301".encode(), b"\xe2\x80\xae.txt", b"bad\xe9", b"bad\xea", b"plain"]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    listed: list[dict[str, str]] = []
    more = True
    while more:
        after = listed[-1]["name"] if listed else ""
        page = _seen(tmp_path, what="list", path="", after=after, limit=1)
        listed += page["files"]
        more = page["more"]
    assert len(listed) == len({entry["name"] for entry in listed}) == len(names)
    for entry in listed:
        path = parse_mount_path(entry["name"], field="path")
        read = _seen(tmp_path, what="read", path=path, offset=0, length=99)
        if entry["kind"] == "file":
            assert base64.b64decode(read["base64"]).decode() == entry["name"]
        else:
            assert (entry["kind"], read) == ("unreadable", {"fault": "not_found"})
    assert sum(entry["kind"] == "unreadable" for entry in listed) == 2


async def test_a_mount_that_is_not_the_callers_is_refused(work):
    """A name that was never mounted is refused as in a job's own request."""
    desk, _ = work
    with pytest.raises(NotAllowed):
        await browse.list_mount(desk, READER, mount="taxes", path="", after="", limit=1)


async def test_what_a_running_job_printed_is_read(work):
    """The log of a job that runs is what its present attempt printed so far; an ended one's is what was kept."""
    desk, worker = work
    submission = Submission({"code": "1"})
    job = (await submit(desk, tenant=LOCAL_TENANT, subject="t", submission=submission)).job
    lease = await worker.lease()
    await worker.say(Started(lease.job_id, lease.epoch))
    event = JobEvent(lease.epoch, 1, "stdout", "so far\n", 0, None, 1)
    await worker.say(Output(lease.job_id, lease.epoch, [event]))
    assert await browse.printed(desk, tenant=LOCAL_TENANT, job_id=job.job_id) == ("so far\n", "")
    await worker.finish(lease, Outcome(OK, stdout=Stream("all\n", 4, 4), stderr=Stream("bad\n", 4, 4)))
    assert await browse.printed(desk, tenant=LOCAL_TENANT, job_id=job.job_id) == ("all\n", "bad\n")
    page = {"offset_bytes": 1, "length_bytes": 2}
    shown = await browse.read_printed(desk, READER, job_id=job.job_id, stream="stdout", **page)
    assert (shown["text"], shown["next_offset_bytes"]) == ("ll", 3)
