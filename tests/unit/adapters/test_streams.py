"""Event logs as files: torn lines, restarts, bounds, a full disk."""

import resource
from pathlib import Path

import pytest

from crank.adapters.streams import FileStreamLog
from crank.domain.ids import JobId
from crank.errors import Unavailable
from crank.testing.samples import sample_event

_JOB = JobId("a")


def _file(root: Path) -> Path:
    (path,) = root.rglob("*.ndjson")
    return path


@pytest.mark.parametrize("torn", [b'{"epoch":1,"seq"', b"\x00" * 40, b"\x00" * 40 + b"\n", b"[]\n"])
async def test_a_torn_end_is_dropped_and_repaired(tmp_path: Path, torn: bytes) -> None:
    """After a crash a reader sees the whole events only, and the next event takes the next position."""
    await FileStreamLog(tmp_path).append(_JOB, [sample_event(1), sample_event(2)])
    with _file(tmp_path).open("ab") as log:
        log.write(torn)
    again = FileStreamLog(tmp_path)
    assert [position for position, _ in await again.read(_JOB, 0, 9)] == [1, 2]
    assert await again.append(_JOB, [sample_event(3)]) == 3
    assert await FileStreamLog(tmp_path).read(_JOB, 2, 9) == [(3, sample_event(3))]
    assert len(_file(tmp_path).read_bytes().splitlines()) == 3


async def test_positions_go_on_after_a_restart(tmp_path: Path) -> None:
    """A new process continues where the last one stood, and reads from any position."""
    await FileStreamLog(tmp_path).append(_JOB, [sample_event(seq) for seq in range(1, 201)])
    again = FileStreamLog(tmp_path)
    assert await again.append(_JOB, [sample_event(201)]) == 201
    assert await again.read(_JOB, 199, 9) == [(200, sample_event(200)), (201, sample_event(201))]


async def test_a_job_cannot_fill_the_disk(tmp_path: Path) -> None:
    """At the bound one last event says so; what comes later is dropped, also after a restart."""
    log = FileStreamLog(tmp_path, bytes_max=5_000)
    last = 0
    for seq in range(1, 101):
        last = await log.append(_JOB, [sample_event(seq, "x" * 50)])
    assert _file(tmp_path).stat().st_size < 5_400
    events = await log.read(_JOB, 0, 1_000)
    assert len(events) == last < 100
    assert events[-1][1].kind == "progress"
    assert "full" in events[-1][1].text
    assert await FileStreamLog(tmp_path, bytes_max=5_000).append(_JOB, [sample_event(101)]) == last
    assert await log.append(JobId("other"), [sample_event(1)]) == 1


async def test_a_full_disk_is_said_and_leaves_whole_events(tmp_path: Path) -> None:
    """When the kernel refuses to write, the batch is dropped whole, and later ones follow without a gap."""
    log = FileStreamLog(tmp_path)
    await log.append(_JOB, [sample_event(1)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    try:
        with pytest.raises(Unavailable) as caught:
            await log.append(_JOB, [sample_event(2, "y" * 5_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.error_code == "disk_full"
    assert await log.append(_JOB, [sample_event(2)]) == 2
    assert await log.read(_JOB, 0, 9) == [(1, sample_event(1)), (2, sample_event(2))]


async def test_more_jobs_than_the_index_holds(tmp_path: Path) -> None:
    """Jobs whose index was dropped from memory go on at the right position."""
    log = FileStreamLog(tmp_path)
    for number in range(600):
        await log.append(JobId(f"j{number}"), [sample_event(1)])
    assert await log.append(JobId("j0"), [sample_event(2)]) == 2
