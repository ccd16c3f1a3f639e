"""The promises of `ports.StreamLog` as tests. Subclass and say in `make` how a log is made."""

import asyncio
from pathlib import Path

from crank.domain.ids import JobId
from crank.ports import StreamLog
from crank.testing.samples import sample_event
from crank.wire import JobEvent


class StreamLogContract:
    """What every StreamLog promises."""

    def make(self, folder: Path) -> StreamLog:
        """Return an empty log."""
        raise NotImplementedError

    def test_events_read_back_with_positions_from_one(self, tmp_path: Path) -> None:
        """Batches of events, with any text and kind, come back equal, in order and without gaps."""

        async def test() -> None:
            log = self.make(tmp_path)
            job = JobId("a")
            texts = ["line\n", "", "\u2028 ü \x00", "\ud800", '{"x":1}\n']
            events = [sample_event(seq, text) for seq, text in enumerate(texts, start=1)]
            events.append(JobEvent(2, 1, "progress", "half", 0, 0.5, 7))
            assert await log.append(job, events[:2]) == 2
            assert await log.append(job, []) == 2
            assert await log.append(job, events[2:]) == 6
            assert await log.read(job, 0, 100) == list(enumerate(events, start=1))

        asyncio.run(test())

    def test_reading_goes_on_after_any_position(self, tmp_path: Path) -> None:
        """From each position a reader gets exactly what follows, bounded by its limit."""

        async def test() -> None:
            log = self.make(tmp_path)
            job = JobId("a")
            await log.append(job, [sample_event(seq, str(seq) * (seq % 7)) for seq in range(1, 301)])
            for after in (0, 1, 127, 128, 129, 255, 256, 299):
                found = await log.read(job, after, 40)
                assert [position for position, _ in found] == list(range(after + 1, min(after + 40, 300) + 1))
                assert all(event.seq == position for position, event in found)
            assert list(await log.read(job, 300, 5)) == []
            assert list(await log.read(job, 1_000, 5)) == []
            assert list(await log.read(job, 0, 0)) == []

        asyncio.run(test())

    def test_jobs_are_apart_and_can_be_forgotten(self, tmp_path: Path) -> None:
        """Ids that look like paths or differ in one letter's case have logs of their own; removing one is final."""

        async def test() -> None:
            log = self.make(tmp_path / "inner")
            ids = [JobId(text) for text in ("a", "A", "..", "../a", "/etc/passwd", "a\x00b")]
            for number, job in enumerate(ids, start=1):
                await log.append(job, [sample_event(number)])
            for number, job in enumerate(ids, start=1):
                assert await log.read(job, 0, 9) == [(1, sample_event(number))]
            for _ in range(2):
                await log.remove(ids[0])
            assert list(await log.read(ids[0], 0, 9)) == []
            assert await log.append(ids[0], [sample_event(5)]) == 1
            assert [path.name for path in tmp_path.iterdir()] in ([], ["inner"])

        asyncio.run(test())

    def test_readers_beside_a_writer_see_whole_events(self, tmp_path: Path) -> None:
        """A reader that follows while another appends gets every event once and in order."""

        async def test() -> None:
            log = self.make(tmp_path)
            job = JobId("a")

            async def write() -> None:
                for seq in range(1, 201):
                    await log.append(job, [sample_event(seq, "x" * 100)])

            async def follow() -> list[int]:
                seen: list[int] = []
                while len(seen) < 200:
                    seen += [event.seq for _, event in await log.read(job, len(seen), 17)]
                    await asyncio.sleep(0)
                return seen

            _, first, second = await asyncio.wait_for(asyncio.gather(write(), follow(), follow()), 60)
            assert first == second == list(range(1, 201))

        asyncio.run(test())
