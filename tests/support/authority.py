"""The authority in memory, with a life that a test chooses, a count of what it issued, and a fault on demand."""

from collections.abc import Sequence

from crank.adapters.clock import SystemIdSource
from crank.domain.identity import SpiffeId
from crank.domain.json import JsonObject
from crank.domain.trust import SignedLists, Svid, Workload
from crank.errors import CrankError
from crank.ports import Clock
from crank.testing.memory_authority import MemoryAuthority


class CountedAuthority(MemoryAuthority):
    """`fault` is raised by whatever is to be signed, while it is set."""

    def __init__(self, trust_domain: str, clock: Clock, *, life_sec: float = 600) -> None:
        super().__init__(trust_domain, clock, SystemIdSource(), leaf_ttl_sec=life_sec)
        self.fault: CrankError | None = None
        self.issued = 0
        self.listed = 0

    def issue(
        self,
        spiffe_id: SpiffeId,
        workload: Workload,
        public_key: bytes,
        *,
        hosts: Sequence[str] = (),
        ttl_sec: float | None = None,
    ) -> Svid:
        """Issue, and count it."""
        if self.fault is not None:
            raise self.fault
        self.issued += 1
        return super().issue(spiffe_id, workload, public_key, hosts=hosts, ttl_sec=ttl_sec)

    def sign_revocations(self, serials: Sequence[tuple[str, int]], *, number: int, next_update_sec: float) -> SignedLists:
        """Sign, and count it."""
        if self.fault is not None:
            raise self.fault
        self.listed += 1
        return super().sign_revocations(serials, number=number, next_update_sec=next_update_sec)

    def sign_jwt_svid(self, claims: JsonObject) -> str:
        """Sign."""
        if self.fault is not None:
            raise self.fault
        return super().sign_jwt_svid(claims)
