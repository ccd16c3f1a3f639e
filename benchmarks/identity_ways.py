"""A gate with tokens of every kind before it, on the real store, for the benchmarks of identity."""

import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from crank.adapters.biscuit import BiscuitHolder, BiscuitIssuer
from crank.adapters.biscuit.keys import point_of, thumbprint
from crank.adapters.blobs import FileBlobStore
from crank.adapters.clock import SystemClock, SystemIdSource
from crank.adapters.failpoints import NoFailpoints
from crank.adapters.jose import JoseProofs, JoseTokens
from crank.adapters.json_schema import JsonSchemaChecker
from crank.adapters.sqlite import SqliteStore
from crank.adapters.streams import FileStreamLog
from crank.api.peer import Gate
from crank.controller.desk import Desk, Policy
from crank.controller.exchange import Shown, Wanted, exchange_token
from crank.controller.keys import admit_owner
from crank.controller.token_desk import TokenDesk
from crank.domain.chain import Holder, Presenter
from crank.domain.rules.exchange import API_KEY
from crank.testing.fake_tokens import FakeTokenKeys
from crank.testing.fake_tokens import Holder as Prover

PLACE = "https://node.bench"
NOW_US = 1_800_000_000_000_000
_TOKENS = 200
_OWNER = "the owner's secret, for the benchmark alone"
_DETAILS = [{"type": "urn:crank:capability", "identifier": "document.convert", "mounts": ["docs"]}]


class _Keys:
    """One key of an issuer."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    def signing(self) -> ec.EllipticCurvePrivateKey:
        """Return it."""
        return self._key

    def believed(self) -> Sequence[ec.EllipticCurvePublicKey]:
        """Return its public part."""
        return [self._key.public_key()]


@dataclass(slots=True)
class Ways:
    """What is verified, and by what.

    many, many_bound  access tokens: of bearers, and bound to one key
    biscuits          tokens of one and of three blocks, with who presents them
    """

    gate: Gate
    reader: JoseTokens
    issuer: BiscuitIssuer
    holder: BiscuitHolder
    many: list[str]
    many_bound: list[str]
    biscuits: tuple[tuple[str, Presenter], tuple[str, Presenter]]
    prover: Prover

    def forget(self) -> None:
        """Let the gate forget whom it knows."""
        self.gate._known.clear()  # noqa: SLF001 — what is measured is the first time

    def prove(self, token: str) -> str:
        """Return a fresh proof for a request with a token."""
        return proof(self.prover, "GET", f"{PLACE}/v1/jobs", token)


def proof(prover: Prover, method: str, url: str, token: str | None) -> str:
    """Return a fresh proof of a key for a request (RFC 9449)."""
    digest = None if token is None else base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest())
    now_sec = SystemClock().now_us() // 1_000_000
    return prover.prove(method, url, now_sec=now_sec, ath=None if digest is None else digest.rstrip(b"=").decode())


@contextlib.asynccontextmanager
async def tokens_of(folder: Path) -> AsyncIterator[Ways]:
    """Give a gate on a store of its own with many tokens."""
    folder.mkdir(parents=True)
    clock, signer = SystemClock(), FakeTokenKeys()
    reader = JoseTokens(signer.access_token_keys, typ="at+jwt")
    store = SqliteStore(folder / "crank.db", failpoints=NoFailpoints())
    await store.start()
    try:
        desk = Desk(
            store, FileBlobStore(folder / "blobs", quota_bytes=1 << 20), FileStreamLog(folder / "streams"), clock,
            SystemIdSource(), JsonSchemaChecker(), NoFailpoints(), Policy("n", "c", "bench.internal", (str(folder),)),
            tokens=TokenDesk(signer, reader, JoseProofs(), place=PLACE),
        )  # fmt: skip
        await admit_owner(desk, _OWNER)
        prover = Prover()
        bearers = [await _token(desk, None) for _ in range(_TOKENS)]
        bound = [await _token(desk, prover.jkt) for _ in range(_TOKENS)]
        issuer, holder = BiscuitIssuer(_Keys()), BiscuitHolder()
        yield Ways(Gate(desk), reader, issuer, holder, bearers, bound, _biscuits(issuer, holder), prover)
    finally:
        await store.stop()


async def _token(desk: Desk, jkt: str | None) -> str:
    issued = await exchange_token(desk, Wanted(Shown(_OWNER, API_KEY), proven=jkt))
    return issued.token


def _biscuits(
    issuer: BiscuitIssuer, holder: BiscuitHolder
) -> tuple[tuple[str, Presenter], tuple[str, Presenter]]:
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(3)]
    ann, bob, cat = (Holder(thumbprint(key.public_key()), point_of(key.public_key())) for key in keys)
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ends = NOW_US // 1_000_000 + 600
    one = issuer.mint({"jti": "g", "sub": "s", "exp": ends, "depth": 2, "authorization_details": _DETAILS}, ann)
    passed = holder.pass_on(one, {"authorization_details": _DETAILS}, bob, keys[0].private_bytes(*pem))
    three = holder.pass_on(passed, {"exp": ends - 60}, cat, keys[1].private_bytes(*pem))
    return (one, Presenter(ann.name)), (three, Presenter(cat.name))
