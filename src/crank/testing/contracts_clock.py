"""The promises of `ports.Clock` and `ports.IdSource` as tests. Subclass and say in `make` how one is made."""

import re
from concurrent.futures import ThreadPoolExecutor

from crank.domain.ids import is_uuid7
from crank.ports import Clock, IdSource


class ClockContract:
    """What every Clock promises."""

    def make(self) -> Clock:
        """Return a clock."""
        raise NotImplementedError

    def test_deadlines_never_go_back(self) -> None:
        """The clock for deadlines grows or stands."""
        clock = self.make()
        readings = [clock.monotonic_sec() for _ in range(1_000)]
        assert readings == sorted(readings)

    def test_people_read_microseconds_since_1970(self) -> None:
        """The other clock is an integer and lies in this century."""
        now_us = self.make().now_us()
        assert isinstance(now_us, int)
        assert 946_684_800_000_000 < now_us < 4_102_444_800_000_000


class IdSourceContract:
    """What every IdSource promises."""

    def make(self) -> IdSource:
        """Return a source."""
        raise NotImplementedError

    def test_ids_are_version_7_and_in_order(self) -> None:
        """Each id has the form of RFC 9562 and is greater than the one before."""
        source = self.make()
        ids = [source.uuid7() for _ in range(5_000)]
        assert all(is_uuid7(text) for text in ids)
        assert ids == sorted(set(ids))

    def test_threads_never_get_the_same_id(self) -> None:
        """Four threads that ask at once get ids that differ."""
        source = self.make()
        with ThreadPoolExecutor(4) as threads:
            batches = list(threads.map(lambda _: [source.uuid7() for _ in range(2_000)], range(4), timeout=60))
        assert all(batch == sorted(batch) for batch in batches)
        assert len({text for batch in batches for text in batch}) == 8_000

    def test_secrets_have_the_length_of_256_bits(self) -> None:
        """A secret is 43 signs of base64url, and no two are the same."""
        source = self.make()
        secrets = {source.secret() for _ in range(100)}
        assert len(secrets) == 100
        assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", secret) for secret in secrets)

    def test_jitter_lies_between_zero_and_one(self) -> None:
        """Zero may come, one never."""
        source = self.make()
        assert all(0 <= source.jitter() < 1 for _ in range(1_000))
