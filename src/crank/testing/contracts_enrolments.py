"""What every Store promises about enrolments, as tests."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from crank.domain.enrolment import Enrolment
from crank.domain.ids import Digest
from crank.domain.rules.enrolment import worker_of
from crank.domain.trust import Attestation
from crank.errors import Conflict, NotFound
from crank.ports import Store
from crank.testing.expect import faults

_TOKENS = tuple(Digest(digit * 64) for digit in "abcdef")
_THUMBPRINT = Digest("1" * 64)


def sample_enrolment(name: str) -> Enrolment:
    """Return a node that was just invited."""
    node_id = f"{name}-00000001"
    return Enrolment(node_id, name, worker_of(node_id), ("document.*", "python.run.core"), 5, expires_us=99)


def _joined(enrolment: Enrolment) -> Enrolment:
    """Return it with every field that may hold something."""
    return replace(
        enrolment,
        thumbprint=_THUMBPRINT,
        pins=True,
        attestation=Attestation.JOIN,
        keys=Digest("2" * 64),
        joined_us=7,
        machine={"host": "bär", "cpus": 2},
    )


class EnrolmentStoreContract:
    """The promises of `ports.EnrolmentStore`."""

    def make(self, folder: Path) -> Store:
        """Return a store that keeps its files in `folder`."""
        raise NotImplementedError

    def run(self, folder: Path, test: Callable[[Store], Awaitable[None]]) -> None:
        """Run a test on an open store."""

        async def running() -> None:
            store = self.make(folder)
            await store.start()
            try:
                await test(store)
            finally:
                await store.stop()

        asyncio.run(running())

    def test_a_node_is_found_by_its_token_and_reads_back_equal(self, tmp_path: Path) -> None:
        """An invited node and one with every field are found by token, worker and certificate; others are not."""
        invited, full = sample_enrolment("a"), _joined(sample_enrolment("b"))

        async def test(store: Store) -> None:
            await store.transact(lambda tx: tx.enrolments.insert(invited, _TOKENS[0]))
            await store.transact(lambda tx: tx.enrolments.insert(full, None))
            assert await store.read(lambda tx: tx.enrolments.by_token(_TOKENS[0])) == invited
            assert await store.read(lambda tx: tx.enrolments.by_token(_TOKENS[1])) is None
            assert await store.read(lambda tx: tx.enrolments.by_thumbprint(_THUMBPRINT)) == full
            assert await store.read(lambda tx: tx.enrolments.of_worker(full.worker_id)) == full
            assert await store.read(lambda tx: tx.enrolments.of_worker(worker_of("c"))) is None
            assert list(await store.read(lambda tx: tx.enrolments.all())) == [invited, full]

        self.run(tmp_path, test)

    def test_names_tokens_and_certificates_are_taken_once(self, tmp_path: Path) -> None:
        """Each is refused a second time while its node is not forgotten, and leaves nothing behind."""
        first = _joined(sample_enrolment("a"))
        again = replace(sample_enrolment("a"), node_id="a-00000002", worker_id=worker_of("a-00000002"))

        async def test(store: Store) -> None:
            await store.transact(lambda tx: tx.enrolments.insert(first, _TOKENS[0]))
            with faults(Conflict, "node_name_taken"):
                await store.transact(lambda tx: tx.enrolments.insert(again, _TOKENS[1]))
            with faults(Conflict, "node_taken"):
                await store.transact(lambda tx: tx.enrolments.insert(sample_enrolment("b"), _TOKENS[0]))
            with faults(Conflict, "thumbprint_taken"):
                await store.transact(lambda tx: tx.enrolments.insert(_joined(sample_enrolment("c")), _TOKENS[2]))
            await store.transact(lambda tx: tx.enrolments.insert(sample_enrolment("d"), _TOKENS[3]))
            with faults(Conflict, "thumbprint_taken"):
                await store.transact(lambda tx: tx.enrolments.update(_joined(sample_enrolment("d"))))
            await store.transact(lambda tx: tx.enrolments.update(replace(first, forgotten_us=9)))
            await store.transact(lambda tx: tx.enrolments.insert(_joined(again), _TOKENS[1]))
            assert await store.read(lambda tx: tx.enrolments.by_thumbprint(_THUMBPRINT)) == _joined(again)

        self.run(tmp_path, test)

    def test_what_is_forgotten_stays_so(self, tmp_path: Path) -> None:
        """No later change takes it back, and who it was never changes."""
        made = sample_enrolment("a")

        async def test(store: Store) -> None:
            with faults(NotFound, "node_not_found"):
                await store.transact(lambda tx: tx.enrolments.update(made))
            await store.transact(lambda tx: tx.enrolments.insert(made, _TOKENS[0]))
            await store.transact(lambda tx: tx.enrolments.update(replace(made, forgotten_us=9)))
            evil = replace(_joined(made), name="evil", capabilities=("*",), worker_id=worker_of("evil"), created_us=1)
            await store.transact(lambda tx: tx.enrolments.update(evil))
            kept = await store.read(lambda tx: tx.enrolments.by_token(_TOKENS[0]))
            assert kept == replace(_joined(made), forgotten_us=9)

        self.run(tmp_path, test)
