"""Both authorities keep the promises of `ports.Authority`."""

from pathlib import Path

import pytest

from crank.adapters.authority import FileAuthority
from crank.ports import Authority
from crank.testing.contracts_authority import DOMAIN, AuthorityContract
from crank.testing.fakes import FakeClock, FakeIdSource
from crank.testing.memory_authority import MemoryAuthority

WEEK_SEC = 7 * 86_400


class TestFileAuthority(AuthorityContract):
    """Files on the disk."""

    @pytest.fixture
    def authority(self, tmp_path: Path, clock: FakeClock) -> Authority:
        made = FileAuthority(tmp_path / "authority", trust_domain=DOMAIN, clock=clock, ids=FakeIdSource())
        made.ensure()
        return made

    def change_keys(self, authority: FileAuthority, clock: FakeClock) -> None:
        clock.advance(WEEK_SEC)
        authority.ensure()
        clock.advance(3600)
        authority.ensure()


class TestMemoryAuthority(AuthorityContract):
    """The one for tests."""

    @pytest.fixture
    def authority(self, clock: FakeClock) -> Authority:
        return MemoryAuthority(DOMAIN, clock, FakeIdSource())

    def change_keys(self, authority: MemoryAuthority, clock: FakeClock) -> None:
        authority.change_keys()
