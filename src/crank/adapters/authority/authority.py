"""The authority of one trust domain: three tiers of keys, what they sign, and what they are checked by."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from crank.adapters.authority.bundles import REFRESH_HINT_SEC, Bundles, digest_of
from crank.adapters.authority.files import damaged, der, pem, read_certificates, write
from crank.adapters.authority.flat import FLAT_LEAF_DAYS, KEY_FILE, find_flat, forget_flat
from crank.adapters.authority.generation import Generation, Generations, root_keys_in
from crank.adapters.authority.identities import Identity, Wanted, keep_in_files, workload_of
from crank.adapters.authority.issuing import Issuing
from crank.adapters.authority.key_store import FileKeys, KeyStore
from crank.adapters.authority.linter import lint_chain, lint_leaf
from crank.adapters.authority.revocations import sign_list
from crank.adapters.authority.shapes import Shapes, Signer, names_of
from crank.adapters.authority.state import AuthorityState, read_state, write_state
from crank.adapters.authority.token_keys import Hsm, TokenKeys
from crank.domain.identity import SpiffeId, make_spiffe_id, parse_spiffe_id, parse_trust_domain
from crank.domain.ids import InstanceId
from crank.domain.json import JsonObject
from crank.domain.rules.root_rotation import refusal, turn
from crank.domain.trust import (
    Attestation,
    AuthorityStatus,
    JwtAuthority,
    Rotation,
    RotationStep,
    SignedLists,
    SigningCertificate,
    Svid,
    TrustBundle,
    Workload,
)
from crank.errors import Conflict, CrankError, InvalidRequest, Unavailable
from crank.ports import Clock, Failpoints, IdSource

LEAF_SEC = 3600.0
TTL_SEC_MIN = 1.0
_US = 1_000_000
_DAY_SEC = 86_400
_log = structlog.get_logger(__name__)


class FileAuthority:
    """The Authority port, kept in a folder that only the controller reads.

    `ensure` makes and maintains it and belongs to the controller; another process of the owner may open the same
    folder and issue, and changes nothing in it.
    """

    def __init__(
        self,
        root: Path,
        *,
        trust_domain: str,
        clock: Clock,
        ids: IdSource,
        leaf_ttl_sec: float = LEAF_SEC,
        keys: KeyStore | None = None,
        failpoints: Failpoints | None = None,
    ) -> None:
        self._root = root
        self._state_file = root / "state.json"
        self._clock = clock
        self._ids = ids
        self._leaf_ttl_sec = leaf_ttl_sec
        self._failpoints = failpoints
        self._shapes = Shapes(parse_trust_domain(trust_domain), clock, ids)
        self._generations = Generations(root, self._shapes, keys or FileKeys(root))
        hsm = None if keys is None else Hsm(keys, ids)
        self._svid_keys = TokenKeys(root / "jwt-svid", use="jwt-svid", clock=clock, hsm=hsm)
        self._token_keys = TokenKeys(root / "access-token", use="sig", clock=clock, hsm=hsm)
        self._bundles = Bundles()
        # Held while the authority changes; issuing takes what it needs under it and signs outside.
        self._lock = threading.RLock()
        self._state: AuthorityState | None = None
        self._loaded: dict[str, Generation] = {}
        self._issuing: dict[str, Issuing] = {}
        self._current: Issuing | None = None
        self._flat: Signer | None = None
        self._instance = InstanceId(ids.uuid7())

    @property
    def trust_domain(self) -> str:
        """Return the name of the trust domain."""
        return self._shapes.trust_domain

    @property
    def ca_file(self) -> Path:
        """Return the published roots, which are no secret."""
        return self._root / "roots.pem"

    def ensure(self) -> None:
        """Make the authority if there is none, check it, and do what has become due. Safe to call again.

        Raises ConfigurationError when its files are damaged, do not fit or are for another trust domain.
        """
        with self._lock:
            self._opened()
            self._maintain()

    def issue(
        self,
        spiffe_id: SpiffeId,
        workload: Workload,
        public_key: bytes,
        *,
        hosts: Sequence[str] = (),
        ttl_sec: float | None = None,
    ) -> Svid:
        """Issue an X.509-SVID. Raises InvalidRequest (`invalid_key`, …), ConfigurationError."""
        issuing = self._issuing_now()
        signer = issuing.signer()
        leaf = self._sign(spiffe_id, workload, public_key, hosts, signer, self._life(ttl_sec))
        return svid_of(spiffe_id, workload, [leaf, signer.certificate, issuing.authority.certificate])

    def sign_jwt_svid(self, claims: JsonObject) -> str:
        """Sign the claims of a JWT-SVID."""
        self._opened()
        return self._svid_keys.sign(claims, kind="JWT")

    def sign_access_token(self, claims: JsonObject) -> str:
        """Sign the claims of a capability token."""
        self._opened()
        return self._token_keys.sign(claims, kind="at+jwt")

    def access_token_keys(self) -> Sequence[JsonObject]:
        """Return the public keys of capability tokens, the newest first."""
        self._opened()
        return self._token_keys.public()

    def bundle(self) -> TrustBundle:
        """Return the bundle as it stands."""
        self._opened()
        current = self._bundles.current()
        assert current is not None
        return current

    async def next_bundle(self, sequence: int) -> TrustBundle:
        """Return the bundle once its sequence is another than this one."""
        self._opened()
        return await self._bundles.next(sequence)

    def sign_revocations(self, serials: Sequence[tuple[str, int]], *, number: int, next_update_sec: float) -> SignedLists:
        """Return lists by the authority that signs now, by those that are published beside it, and those of their roots."""
        with self._lock:
            state = self._opened()
            published = [self._loaded[mark] for mark in (state.current, state.other) if mark is not None]
            signers = [each.authority for each in published] + ([self._flat] if self._flat else [])
        now = self._shapes.now()
        return SignedLists(
            tuple(sign_list(each, serials, number=number, now=now, next_update_sec=next_update_sec) for each in signers),
            tuple(each.root_list for each in published if each.root_list is not None),
            is_whole=all(each.root_list is not None for each in published),
        )

    # --- the operator's side ----------------------------------------------------------------

    def status(self) -> AuthorityStatus:
        """Return how the authority stands."""
        with self._lock:
            state = self._opened()
            return AuthorityStatus(
                trust_domain=self.trust_domain,
                rotation=state.rotation,
                sequence=state.sequence,
                leaf_ttl_sec=self._leaf_ttl_sec,
                certificates=tuple(self._own_certificates(state)),
                root_keys=tuple(str(path) for path in root_keys_in(self._root)),
            )

    def turn_root(
        self, step: RotationStep, *, unaware: Sequence[str] = (), followed: bool = False, force: bool = False
    ) -> Rotation:
        """Take a step of the change to another root. Raises Conflict, ConfigurationError, Unavailable."""
        try:
            with self._lock:
                return self._turn(step, unaware, followed=followed, force=force)
        except OSError as fault:
            raise Unavailable(
                f"The authority's files cannot be written: {fault.strerror or fault}.",
                code="authority_unwritable",
                fix="Free some space on the disk of the node's home; the change of root stands where it stood.",
            ) from fault

    def _turn(self, step: RotationStep, unaware: Sequence[str], *, followed: bool, force: bool) -> Rotation:
        state = self._opened()
        now_us = self._clock.now_us()
        hint_sec = REFRESH_HINT_SEC if followed else None
        refused = refusal(state.rotation, step, now_us=now_us, unaware=unaware, hint_sec=hint_sec, force=force)
        if refused is not None:
            raise Conflict(refused.message, code=refused.code, field=refused.constraint, fix=refused.fix)
        made = None
        if step is RotationStep.PREPARE:
            generation = self._generations.make()
            made = generation.mark
            self._loaded[made] = generation
            self._reach("rotation.made")
        leaf_sec = max(self._leaf_ttl_sec, (state.alive_until_us - now_us) / _US)
        rotation = turn(state.rotation, step, made=made, now_us=now_us, leaf_sec=leaf_sec)
        self._publish(state.turned(rotation))
        _log.info("root_rotation", step=str(step), phase=str(rotation.phase), current=rotation.current)
        self._forget_others()
        return rotation

    def _own_certificates(self, state: AuthorityState) -> Iterator[SigningCertificate]:
        for mark in (state.current, state.other):
            if mark is None:
                continue
            generation = self._loaded[mark]
            yield _shown("root", mark, generation.root, "offline: never read by the node")
            yield _shown("authority", mark, generation.authority.certificate, generation.key_place)
            signer = self._issuing[mark].current() if mark in self._issuing else None
            if signer is not None:
                yield _shown("issuing", mark, signer.certificate, "in memory alone")
        if self._flat is not None:
            yield _shown("flat", "", self._flat.certificate, str(self._root / KEY_FILE))

    # --- the node's own files -----------------------------------------------------------------

    def issue_controller(self, controller_id: str, *, addresses: Sequence[str] = ()) -> Identity:
        """Return the controller's identity, good for servers on loopback and on `addresses`.

        Renewed when half of its life is gone, an address is new, or another authority signs.
        Raises ConfigurationError for damaged files.
        """
        identity = Identity(make_spiffe_id(self.trust_domain, "controller", controller_id), self._root / "controller")
        workload = Workload("controller", self._instance, Attestation.JOIN)
        self._keep(identity, ["localhost", "127.0.0.1", "::1", *addresses], workload, flat=True)
        return identity

    def issue_worker(self, worker_id: str, folder: Path) -> Identity:
        """Return a worker's identity in `folder`; renewed like the controller's.

        Raises ConfigurationError for damaged files.
        """
        identity = Identity(make_spiffe_id(self.trust_domain, "worker", worker_id), folder)
        self._keep(identity, [], None, flat=False)
        return identity

    def read_local(self, folder: Path) -> Svid | None:
        """Return the certificate in a folder of this machine, if this authority signed it and it has not expired.

        Raises ConfigurationError for a damaged file.
        """
        path = folder / "cert.pem"
        if not path.exists():
            return None
        chain = read_certificates(path)
        with self._lock:
            self._opened()
            signers = [each.authority.certificate for each in self._loaded.values()]
            signers += [self._flat.certificate] if self._flat else []
        if chain[-1] not in signers:
            chain += [each for each in signers if each.subject == chain[-1].issuer][:1]
        if chain[-1] not in signers or chain[0].not_valid_after_utc <= self._shapes.now():
            return None
        lint_chain(tuple(chain))
        workload, names = workload_of(chain[0]), chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName)
        if workload is None:
            # From before there was one.
            return None
        (uri,) = names.value.get_values_for_type(x509.UniformResourceIdentifier)
        return svid_of(parse_spiffe_id(uri), workload, chain)

    def publish_ca(self, target: Path) -> None:
        """Write the roots to where callers of the API find them."""
        self._opened()
        write(target, self.ca_file.read_bytes(), mode=0o644)

    def _keep(self, identity: Identity, hosts: Sequence[str], workload: Workload | None, *, flat: bool) -> None:
        with self._lock:
            issuing = self._issuing_now()
            old = self._flat if flat else None
            roots = self.ca_file.read_bytes()

        def sign(
            public_key: bytes, spiffe_id: SpiffeId, hosts: Sequence[str], workload: Workload
        ) -> Sequence[x509.Certificate]:
            signer = old or issuing.signer()
            leaf = self._sign(spiffe_id, workload, public_key, hosts, signer, self._leaf_ttl_sec)
            return [leaf] if old else [leaf, signer.certificate, issuing.authority.certificate]

        # Whoever has the folder of a node's part was let in by the node's owner, on this machine.
        fresh = Workload(identity.spiffe_id.kind, InstanceId(self._ids.uuid7()), Attestation.JOIN)
        issuer = (old or issuing.authority).certificate
        keep_in_files(Wanted(identity, hosts, workload, lambda: fresh, issuer), roots, self._shapes, sign)

    # --- inside ---------------------------------------------------------------------------------

    def _sign(
        self,
        spiffe_id: SpiffeId,
        workload: Workload,
        public_key: bytes,
        hosts: Sequence[str],
        signer: Signer,
        life_sec: float,
    ) -> x509.Certificate:
        if spiffe_id.trust_domain != self.trust_domain:
            raise InvalidRequest(
                f"This authority issues for {self.trust_domain}, not for {spiffe_id.trust_domain}.",
                code="foreign_trust_domain",
                field="spiffe_id",
            )
        key = read_public_key(public_key)
        leaf = self._shapes.leaf(key, names_of(spiffe_id, hosts), workload, signer, life_sec)
        lint_leaf(leaf, signer.certificate, self.trust_domain)
        return leaf

    def _life(self, ttl_sec: float | None) -> float:
        if ttl_sec is None:
            return self._leaf_ttl_sec
        if not ttl_sec >= TTL_SEC_MIN:
            raise InvalidRequest("A certificate lives one second at least.", code="invalid_ttl", field="ttl_sec")
        return min(ttl_sec, self._leaf_ttl_sec)

    def _opened(self) -> AuthorityState:
        current = self._state
        if current is not None:
            # Nobody who issues waits for a change that is under way.
            return current
        with self._lock:
            if self._state is None:
                made = not self._state_file.exists()
                self._state = self._open()
                if made:
                    self._maintain()
                else:
                    self._bundles.put(self._bundle_of(self._state))
            return self._state

    def _issuing_now(self) -> Issuing:
        self._opened()
        current = self._current
        if current is None:
            with self._lock:
                current = self._current = self._issuing_of(self._opened().current)
        return current

    def _issuing_of(self, mark: str) -> Issuing:
        if mark not in self._issuing:
            self._issuing[mark] = Issuing(self._loaded[mark].authority, self._shapes)
        return self._issuing[mark]

    def _open(self) -> AuthorityState:
        state = read_state(self._state_file)
        # One that was retired is not looked at: a crash may have left half of it.
        retired = state is not None and state.flat_until_us is None
        flat = None if retired else find_flat(self._root, self._shapes)
        if state is None:
            state = self._first_state(flat)
        if state.trust_domain != self.trust_domain:
            cause = f"the authority is not that of the trust domain {self.trust_domain}"
            raise damaged(self._state_file, cause)
        marks = [state.current, *([state.other] if state.other else [])]
        self._loaded = {mark: self._generations.load(mark) for mark in marks}
        self._flat = flat
        self._svid_keys.load()
        self._token_keys.load()
        return state

    def _first_state(self, flat: Signer | None) -> AuthorityState:
        made = self._generations.complete()
        if len(made) > 1:
            raise damaged(self._state_file, "it is gone, and there is more than one authority")
        # One that was made just before a crash, else a new one.
        mark = made[0] if made else self._generations.make().mark
        until_us = None if flat is None else self._clock.now_us() + FLAT_LEAF_DAYS * _DAY_SEC * _US
        state = AuthorityState(self.trust_domain, mark, flat_until_us=until_us)
        write_state(self._state_file, state)
        return state

    def _reach(self, moment: str) -> None:
        if self._failpoints is not None:
            self._failpoints.reach(moment)

    def _forget_others(self) -> None:
        """Destroy what no root needs any more: a generation that was aborted, retired, or half made in a crash."""
        state = self._opened()
        marks = frozenset(mark for mark in (state.current, state.other) if mark is not None)
        self._loaded = {mark: self._loaded[mark] for mark in marks}
        self._issuing = {mark: issuing for mark, issuing in self._issuing.items() if mark in marks}
        try:
            self._generations.keep_only(marks)
        except (CrankError, OSError) as fault:
            # Looked at again soon; an HSM that is away must not keep the node from its work.
            _log.warning("old_authority_not_removed", cause=str(fault))

    def _maintain(self) -> None:
        state = self._opened()
        self._svid_keys.rotate()
        self._token_keys.rotate()
        if state.flat_until_us is not None and self._clock.now_us() >= state.flat_until_us:
            _log.info("flat_authority_retired")
            state = replace(state, flat_until_us=None)
            self._flat = None
        if state.leaf_sec != self._leaf_ttl_sec:
            # What was signed under another setting may outlive what is signed now.
            alive_until_us = max(state.alive_until_us, self._clock.now_us() + int(state.leaf_sec * _US))
            state = replace(state, leaf_sec=self._leaf_ttl_sec, alive_until_us=alive_until_us)
        if state.other is not None and state.prepared_us is None:
            # Prepared by an older version, which did not note when.
            state = replace(state, prepared_us=self._clock.now_us())
        self._publish(state)
        if self._flat is None:
            forget_flat(self._root)
        self._forget_others()

    def _roots(self, state: AuthorityState) -> list[x509.Certificate]:
        # In an order of their own: a root that begins to sign changes nothing for those who check.
        certificates = sorted(
            (self._loaded[mark].root for mark in (state.current, state.other) if mark is not None),
            key=lambda root: (root.not_valid_before_utc, root.serial_number),
        )
        return [*certificates, *([self._flat.certificate] if self._flat else [])]

    def _bundle_of(self, state: AuthorityState) -> TrustBundle:
        return TrustBundle(
            trust_domain=self.trust_domain,
            sequence=state.sequence,
            refresh_hint_sec=REFRESH_HINT_SEC,
            x509_authorities=tuple(der(each) for each in self._roots(state)),
            jwt_authorities=tuple(JwtAuthority(str(key["kid"]), key) for key in self._svid_keys.public()),
        )

    def _publish(self, state: AuthorityState) -> None:
        """Keep a state, and the bundle that follows from it with a sequence of its own."""
        bundle = self._bundle_of(state)
        content = digest_of(bundle)
        if content != state.content:
            # Grows also where an older state was restored from a backup: time went on meanwhile.
            sequence = max(state.sequence + 1, self._clock.now_us() // _US)
            state, bundle = replace(state, content=content, sequence=sequence), replace(bundle, sequence=sequence)
        if state != self._state:
            self._reach("authority.before_state")
            write_state(self._state_file, state)
            self._reach("authority.after_state")
        self._state, self._current = state, self._issuing_of(state.current)
        write(self.ca_file, pem(*self._roots(state)), mode=0o644)
        if self._bundles.current() != bundle:
            self._bundles.put(bundle)


def _shown(tier: str, mark: str, certificate: x509.Certificate, place: str) -> SigningCertificate:
    return SigningCertificate(
        tier=tier,
        mark=mark,
        serial=f"{certificate.serial_number:x}",
        not_before_us=int(certificate.not_valid_before_utc.timestamp()) * _US,
        not_after_us=int(certificate.not_valid_after_utc.timestamp()) * _US,
        key_place=place,
    )


def svid_of(spiffe_id: SpiffeId, workload: Workload, chain: Sequence[x509.Certificate]) -> Svid:
    """Return a signed chain as it is handed out, the leaf first."""
    leaf = chain[0]
    return Svid(
        spiffe_id=spiffe_id,
        workload=workload,
        chain=tuple(der(each) for each in chain),
        serial=f"{leaf.serial_number:x}",
        not_before_us=int(leaf.not_valid_before_utc.timestamp()) * _US,
        not_after_us=int(leaf.not_valid_after_utc.timestamp()) * _US,
    )


def read_public_key(octets: bytes) -> ec.EllipticCurvePublicKey:
    """Read a DER SubjectPublicKeyInfo. Raises InvalidRequest (`invalid_key`) for anything but P-256."""
    try:
        key = load_der_public_key(octets)
    except (ValueError, TypeError, UnsupportedAlgorithm) as fault:
        raise InvalidRequest("The public key cannot be read.", code="invalid_key", field="public_key") from fault
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidRequest("The public key is not one on the curve P-256.", code="invalid_key", field="public_key")
    return key
