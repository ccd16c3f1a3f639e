"""What every Store promises about foreign trust domains, as tests."""

from dataclasses import replace
from pathlib import Path

from crank.domain.federation import EndpointProfile, Federated
from crank.errors import Conflict, NotFound
from crank.ports import Store, Transaction
from crank.testing.contracts_store import StoreContract
from crank.testing.expect import faults

_FULL = Federated(
    trust_domain="two.test",
    url="https://two.test/trust-bundle",
    profile=EndpointProfile.SPIFFE,
    endpoint_id="spiffe://two.test/controller/n2",
    ca_pem=None,
    private=True,
    stale_after_sec=3600,
    added_us=1,
    bundle='{"keys":[]}',
    fetched_us=2,
    tried_us=3,
    failure="it did not answer",
)
_WEB = replace(
    _FULL, trust_domain="a.test", profile=EndpointProfile.WEB, endpoint_id=None, ca_pem="PEM", private=False, failure=None
)


class FederationStoreContract(StoreContract):
    """The promises of `ports.FederationStore`."""

    def test_a_federation_reads_back_equal_and_is_made_once(self, tmp_path: Path) -> None:
        """Both profiles survive, in the order of their names; a domain is federated with once."""

        async def test(store: Store) -> None:
            for each in (_FULL, _WEB):
                await store.transact(lambda tx, each=each: tx.federation.insert(each))  # type: ignore[misc]
            assert await store.read(lambda tx: list(tx.federation.all())) == [_WEB, _FULL]
            assert await store.read(lambda tx: tx.federation.find("two.test")) == _FULL
            assert await store.read(lambda tx: tx.federation.find("none.test")) is None
            with faults(Conflict, "federation_exists"):
                await store.transact(lambda tx: tx.federation.insert(replace(_FULL, url="https://other.test/")))

        self.run(tmp_path, test)

    def test_only_the_bundle_of_a_federation_changes(self, tmp_path: Path) -> None:
        """Bundle, times and failure are replaced; what is pinned is not, whoever asks."""
        asked = replace(
            _FULL, url="https://evil.test/", endpoint_id=None, private=False, bundle="{}", fetched_us=8, tried_us=9, failure=None
        )
        kept = replace(_FULL, bundle="{}", fetched_us=8, tried_us=9, failure=None)

        def check(tx: Transaction) -> None:
            assert tx.federation.find("two.test") == kept

        self.write(tmp_path, lambda tx: tx.federation.insert(_FULL), lambda tx: tx.federation.update(asked), check=check)

    def test_what_was_removed_is_gone(self, tmp_path: Path) -> None:
        """A removed domain is found no more, cannot be brought back by an update, and may be added anew."""

        async def test(store: Store) -> None:
            await store.transact(lambda tx: tx.federation.insert(_FULL))
            assert await store.transact(lambda tx: tx.federation.remove("two.test"))
            assert not await store.transact(lambda tx: tx.federation.remove("two.test"))
            with faults(NotFound, "federation_not_found"):
                await store.transact(lambda tx: tx.federation.update(_FULL))
            assert await store.read(lambda tx: list(tx.federation.all())) == []
            await store.transact(lambda tx: tx.federation.insert(_WEB))

        self.run(tmp_path, test)
