"""Visits a node's Unix socket with the PyPI client of SPIFFE's Workload API, unmodified; prints what it saw as JSON lines.

    visit.py denied <socket>    a process that has no identity
    visit.py whole <socket>     one that has: fetches, validates, watches a rotation, and then the end of its identity
"""

import json
import sys
import threading

from spiffe import JwtSource, WorkloadApiClient, X509Source
from spiffe.errors import PySpiffeError

PATIENCE_SEC = 40


def tell(**seen: object) -> None:
    """Print what was seen."""
    print(json.dumps(seen), flush=True)


def refusal(work) -> str:
    """Return what a call was refused with."""
    try:
        work()
    except PySpiffeError as fault:
        return str(fault)
    return "was not refused"


def denied(socket: str) -> None:
    """Try every call."""
    with WorkloadApiClient(socket_path=socket) as client:
        tell(
            x509=refusal(client.fetch_x509_svid),
            bundles=refusal(client.fetch_x509_bundles),
            jwt=refusal(lambda: client.fetch_jwt_svid({"db"})),
            jwt_bundles=refusal(client.fetch_jwt_bundles),
            validate=refusal(lambda: client.validate_jwt_svid("a.b.c", "db")),
        )


def whole(socket: str) -> None:
    """Do what a workload does in its life."""
    with WorkloadApiClient(socket_path=socket) as client:
        context = client.fetch_x509_context()
        svid = context.default_svid
        own = svid.spiffe_id.trust_domain
        token = client.fetch_jwt_svid({"db", "cache"})
        answer = client.validate_jwt_svid(token.token, "db")
        authorities = client.fetch_jwt_bundles().get_bundle_for_trust_domain(own).jwt_authorities
        tell(
            ids=[str(one.spiffe_id) for one in client.fetch_x509_svids()],
            chain=len(svid.cert_chain),
            roots=len(client.fetch_x509_bundles().get_bundle_for_trust_domain(own).x509_authorities),
            token=str(token.spiffe_id),
            validated=str(answer.spiffe_id),
            signed_by_bundle=token.token and len(authorities) > 0,
            wrong_audience=refusal(lambda: client.validate_jwt_svid(token.token, "other")),
            not_mine=refusal(lambda: client.fetch_jwt_svid({"db"}, subject=svid.spiffe_id.__class__(f"{svid.spiffe_id}x"))),
        )
    watch(socket)


def watch(socket: str) -> None:
    """Watch until the identity ends."""
    changed = threading.Semaphore(0)
    with X509Source(socket_path=socket, timeout_in_seconds=PATIENCE_SEC) as source:
        source.subscribe_for_updates(changed.release)
        first = source.get_x509_context().default_svid
        with JwtSource(socket_path=socket, timeout_in_seconds=PATIENCE_SEC) as tokens:
            tell(watching=str(tokens.fetch_svid({"db"}).spiffe_id))
        while source.get_x509_context().default_svid.leaf.serial_number == first.leaf.serial_number:
            assert changed.acquire(timeout=PATIENCE_SEC), "no rotation was pushed"
        second = source.get_x509_context().default_svid
        tell(rotated=str(second.spiffe_id), new_key=first.private_key != second.private_key)
    with WorkloadApiClient(socket_path=socket) as client:
        seen, ended = threading.Event(), threading.Event()
        faults = []

        def failed(fault: Exception) -> None:
            faults.append(str(fault))
            ended.set()

        client.stream_x509_contexts(lambda _context: seen.set(), failed, retry_connect=False)
        assert seen.wait(PATIENCE_SEC), "nothing came"
        tell(streaming=True)
        assert ended.wait(PATIENCE_SEC), "the end was not told"
        tell(ended=faults[0], again=refusal(client.fetch_x509_svid))


if __name__ == "__main__":
    {"denied": denied, "whole": whole}[sys.argv[1]](sys.argv[2])
