"""Keys of this machine's workloads: an entry keeps one across its certificates, because tokens are bound to it.

They are in memory alone: after a restart every entry has another one.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from crank.controller.desk import Desk
from crank.domain.ids import InstanceId
from crank.domain.rules.workload import is_key_old
from crank.domain.trust import Svid
from crank.domain.workload import EntryId, WorkloadEntry
from crank.ports import KeyMaker


@dataclass(slots=True, eq=False)
class WorkloadKey:
    """An entry's key: private (DER, PKCS#8) and public (DER SubjectPublicKeyInfo).

    instance  what its certificates name: it tells the workload from others, and from itself with another key
    serials   its certificates that have not expired, and when each does, microseconds since 1970
    """

    entry: WorkloadEntry
    private: bytes = field(repr=False)
    public: bytes
    instance: InstanceId
    made_us: int
    made_sec: float
    serials: dict[str, int] = field(default_factory=dict)


class WorkloadKeys:
    """One key an entry. It is given up when one of its certificates or its identity is revoked, and when it is old."""

    def __init__(self, desk: Desk, maker: KeyMaker) -> None:
        self._desk = desk
        self._maker = maker
        self._keys: dict[EntryId, WorkloadKey] = {}

    def next_for(self, entry: WorkloadEntry) -> WorkloadKey:
        """Return the key of an entry's next certificate: the one that it has, or a new one."""
        key = self._keys.get(entry.entry_id)
        if key is None or key.entry != entry or self._is_lost(key) or self._is_old(key):
            clock, instance = self._desk.clock, InstanceId(self._desk.ids.uuid7())
            key = WorkloadKey(entry, *self._maker.make(), instance, clock.now_us(), clock.monotonic_sec())
            self._keys[entry.entry_id] = key
        return key

    def signed(self, key: WorkloadKey, svid: Svid) -> None:
        """Note a certificate of a key, before anybody has it."""
        now_us = self._desk.clock.now_us()
        key.serials = {serial: ends_us for serial, ends_us in key.serials.items() if ends_us > now_us}
        key.serials[svid.serial] = svid.not_after_us

    def holds(self, entry: WorkloadEntry, private: bytes) -> bool:
        """Tell whether this is still the key of an entry."""
        key = self._keys.get(entry.entry_id)
        return key is not None and key.private == private and not self._is_lost(key)

    def keep(self, living: Collection[EntryId]) -> None:
        """Forget the keys of all other entries."""
        self._keys = {name: key for name, key in self._keys.items() if name in living}

    def forget_lost(self) -> None:
        """Forget what was revoked, now: when its certificates have expired nothing tells that they were."""
        self._keys = {name: key for name, key in self._keys.items() if not self._is_lost(key)}

    def _is_lost(self, key: WorkloadKey) -> bool:
        standing = self._desk.standing
        # Whoever took one certificate back may have lost its key, which is that of the others, too.
        return standing.is_banned(key.entry.spiffe_id) or any(map(standing.is_revoked, key.serials))

    def _is_old(self, key: WorkloadKey) -> bool:
        # By both clocks: a machine that slept did not count the seconds, and a wall's clock is set back.
        clock = self._desk.clock
        return is_key_old((clock.now_us() - key.made_us) / 1_000_000) or is_key_old(clock.monotonic_sec() - key.made_sec)
