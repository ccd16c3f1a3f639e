"""Visits a node's Unix socket with the PyPI client of SPIFFE's Workload API, unmodified; prints what it saw as JSON lines.

    visit.py denied <socket>    a process that has no identity
    visit.py whole <socket> <api> <ca file> <token file>
                                one that has: fetches, validates, watches a rotation, and then the end of its identity
"""

import http.client
import json
import ssl
import sys
import tempfile
import threading
import urllib.parse
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding
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


class Api:
    """The node's API, asked with an identity's certificate."""

    def __init__(self, place: str, ca_file: str, token_file: str) -> None:
        self._place = place.removeprefix("https://")
        self._ca_file = ca_file
        self._secret = Path(token_file).read_text().strip()

    def token(self, svid) -> str:
        """Return a token that is bound to the key of this identity."""
        kind = "urn:ietf:params:oauth:grant-type:token-exchange"
        form = {"grant_type": kind, "subject_token": self._secret, "subject_token_type": "urn:crank:params:token-type:api-key"}
        sent = {"Content-Type": "application/x-www-form-urlencoded"}
        return json.loads(self._ask(svid, "POST", "/v1/token", sent, urllib.parse.urlencode(form)).read())["access_token"]

    def opens(self, svid, token: str) -> int:
        """Return the status with which a token is answered beside this identity."""
        return self._ask(svid, "GET", "/v1/jobs", {"Authorization": f"Bearer {token}"}).status

    def _ask(self, svid, method: str, path: str, headers: dict[str, str], body: str | None = None):
        context = ssl.create_default_context(cafile=self._ca_file)
        with tempfile.TemporaryDirectory() as folder:
            files = f"{folder}/cert.pem", f"{folder}/key.pem"
            svid.save(*files, Encoding.PEM)
            context.load_cert_chain(*files)
        connection = http.client.HTTPSConnection(self._place, context=context, timeout=PATIENCE_SEC)
        connection.request(method, path, body, headers)
        return connection.getresponse()


def whole(socket: str, *api: str) -> None:
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
    watch(socket, Api(*api))


def watch(socket: str, api: Api) -> None:
    """Watch until the identity ends."""
    changed = threading.Semaphore(0)
    with X509Source(socket_path=socket, timeout_in_seconds=PATIENCE_SEC) as source:
        source.subscribe_for_updates(changed.release)
        first = source.get_x509_context().default_svid
        token = api.token(first)
        with JwtSource(socket_path=socket, timeout_in_seconds=PATIENCE_SEC) as tokens:
            tell(watching=str(tokens.fetch_svid({"db"}).spiffe_id))
        while source.get_x509_context().default_svid.leaf.serial_number == first.leaf.serial_number:
            assert changed.acquire(timeout=PATIENCE_SEC), "no rotation was pushed"
        second = source.get_x509_context().default_svid
        same_key = first.private_key.private_numbers() == second.private_key.private_numbers()
        tell(rotated=str(second.spiffe_id), same_key=same_key, token=api.opens(second, token))
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
    {"denied": denied, "whole": whole}[sys.argv[1]](*sys.argv[2:])
