"""What identity costs: certificates issued and tokens verified a second, beside the bare signatures that they are made of.

All ways take turns, a short burst each. A rate is by seconds of CPU that this process used, which a busy machine does not
change much, and beside it by the clock on the wall; the share of the bare signature's rate is what compares machines.
"""

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks import identity_node
from benchmarks.identity_ways import NOW_US, Ways, tokens_of
from benchmarks.node import running_node
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.requests import Request

from crank.adapters.authority import FileAuthority
from crank.adapters.clock import SystemClock, SystemIdSource
from crank.domain.identity import make_spiffe_id
from crank.domain.ids import InstanceId
from crank.domain.trust import Attestation, Workload

REPO = Path(__file__).resolve().parents[1]
BURST_SEC = 0.25
_CSRS = 64
_TRUST_DOMAIN = "bench.internal"
# What a request asks the application of: under which names it is known.
_APP = SimpleNamespace(state=SimpleNamespace(names=frozenset({"node.bench"}), public_url="", bind="127.0.0.1"))


@dataclass(slots=True)
class Counted:
    """How often one thing was done, and in how many seconds."""

    done: int = 0
    wall_sec: float = 0.0
    cpu_sec: float = 0.0

    @property
    def per_cpu_sec(self) -> float:
        """Return how often a second of CPU."""
        return self.done / max(self.cpu_sec, 1e-9)


@dataclass(slots=True)
class Part:
    """One thing to be done again and again; `over` is the bare operation that it is divided by."""

    name: str
    once: Callable[[], Awaitable[None] | None]
    over: str | None = None
    counted: Counted = field(default_factory=Counted)


async def in_turns(parts: list[Part], during_sec: float) -> dict[str, Any]:
    """Do every part in short bursts, one after the other, until each had its time."""
    for _ in range(max(1, round(during_sec / BURST_SEC))):
        for part in parts:
            await _burst(part)
    rates = {part.name: part.counted.per_cpu_sec for part in parts}
    return {
        part.name: {
            "per_cpu_sec": round(rates[part.name], 1),
            "per_sec": round(part.counted.done / part.counted.wall_sec, 1),
            **({} if part.over is None else {"of": part.over, "share": round(rates[part.name] / rates[part.over], 3)}),
        }
        for part in parts
    }


async def _burst(part: Part) -> None:
    ends_at = time.perf_counter() + BURST_SEC
    began, used, done = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() < ends_at:
        waited = part.once()
        if waited is not None:
            await waited
        done += 1
    part.counted.wall_sec += time.perf_counter() - began
    part.counted.cpu_sec += time.process_time() - used
    part.counted.done += done


def signatures() -> list[Part]:
    """Return the bare operations: one P-256 signature, and one verification."""
    key = ec.generate_private_key(ec.SECP256R1())
    public, how = key.public_key(), ec.ECDSA(hashes.SHA256())
    signature = key.sign(b"x" * 300, how)
    return [
        Part("sign", lambda: _ignore(key.sign(b"x" * 300, how))),
        Part("verify", lambda: public.verify(signature, b"x" * 300, how)),
    ]


def _ignore(_: object) -> None:
    return None


def svids(folder: Path) -> list[Part]:
    """Return the issuing of an X.509-SVID from a request: read it, prove its key, sign, by the port of the authority."""
    authority = FileAuthority(folder, trust_domain=_TRUST_DOMAIN, clock=SystemClock(), ids=SystemIdSource())
    authority.ensure()
    name = make_spiffe_id(_TRUST_DOMAIN, "worker", "bench")
    workload = Workload("worker", InstanceId(SystemIdSource().uuid7()), Attestation.JOIN)
    requests = cycle([_request(str(name)) for _ in range(_CSRS)])
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo

    def issue() -> None:
        request = x509.load_der_x509_csr(next(requests))
        assert request.is_signature_valid
        authority.issue(name, workload, request.public_key().public_bytes(*form))

    return [Part("SVID from CSR", issue, "sign")]


def _request(uri: str) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def tokens(ways: Ways) -> list[Part]:
    """Return the verifying of tokens: each for the first time, and again; as JWT and as Biscuit."""
    fresh, bound = cycle(ways.many), cycle(ways.many_bound)
    one, three = ways.biscuits

    async def admit(headers: dict[str, str]) -> None:
        await ways.gate.admit(_asking(headers))

    async def cold() -> None:
        ways.forget()
        await admit({"authorization": f"Bearer {next(fresh)}"})

    async def proven() -> None:
        token = next(bound)
        await admit({"authorization": f"DPoP {token}", "dpop": ways.prove(token)})

    return [
        Part("at+jwt, signature and claims", lambda: _ignore(ways.reader.read(next(fresh))), "verify"),
        Part("at+jwt, admitted first", cold, "verify"),
        Part("at+jwt, admitted again", lambda: admit({"authorization": f"Bearer {ways.many[0]}"}), "verify"),
        Part("at+jwt, with a fresh proof made and checked", proven, "verify"),
        Part("Biscuit, one block", lambda: _judge(ways, one), "verify"),
        Part("Biscuit, passed on twice", lambda: _judge(ways, three), "verify"),
        Part("Biscuit, narrowed offline", lambda: _ignore(ways.holder.narrow(one[0], {"exp": NOW_US // 10**6 + 9})), "sign"),
    ]


def _judge(ways: Ways, what: tuple[str, Any]) -> None:
    token, presenter = what
    ways.issuer.revocation_ids(token)
    ways.issuer.open(token).evaluate(presenter, NOW_US)


def _asking(headers: dict[str, str]) -> Request:
    raw = [(name.encode(), value.encode()) for name, value in {"host": "node.bench", **headers}.items()]
    scope = {
        "type": "http", "method": "GET", "scheme": "https", "server": ("node.bench", 443), "path": "/v1/jobs",
        "raw_path": b"/v1/jobs", "query_string": b"", "headers": raw, "state": {}, "app": _APP,
    }  # fmt: skip
    return Request(scope)


async def measure(folder: Path, during_sec: float) -> dict[str, Any]:
    """Return rates of everything that needs no node."""
    async with tokens_of(folder / "store") as ways:
        parts = [*signatures(), *svids(folder / "authority"), *tokens(ways)]
        return await in_turns(parts, during_sec)


def main() -> None:
    """Measure this part alone and print it as JSON."""
    parser = argparse.ArgumentParser(prog="identity", description="Measure what identity costs.")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each rate is measured")
    parser.add_argument("--rounds", type=int, default=200, help="how often each way of asking a node is used")
    parser.add_argument("--node", action="store_true", help="start a node and measure it, too")
    options = parser.parse_args()
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="crank-bench-") as folder:
        found: dict[str, Any] = {"rates": asyncio.run(measure(Path(folder), options.seconds))}
        if options.node:
            os.environ.setdefault("CRANK_PROFILES_BUILDS", str(REPO / ".cache" / "profiles"))
            os.environ.update(CRANK_HOME=f"{folder}/home", CRANK_API_PORT="0", CRANK_WORKERS_PORT="0")
            with running_node():
                found |= asyncio.run(identity_node.measure(options.rounds, notes))
    print(json.dumps({**found, "notes": notes}, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
