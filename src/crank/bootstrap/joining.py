"""How a machine joins a controller elsewhere: it proves that the controller is the right one, then itself.

First the controller's roots are fetched, from whoever answers, and all are dropped that the pasted command does not
pin by their SHA-256. Then a second connection is made that believes only what is left, and that the other side is a
controller of that trust domain by its SPIFFE ID, whatever its host is called. Only on this one anything is said.
"""

import base64
import hashlib
import http.client
import json
import os
import platform
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

import crank
from crank.adapters.signed import sign_evidence, signing_request, spki
from crank.bootstrap.files import write_whole
from crank.bootstrap.member import Member, as_member, kept_key, member_dir, node_key, pem, write_member
from crank.config import Settings
from crank.domain.identity import SpiffeId, make_spiffe_id, parse_trust_domain
from crank.domain.ids import Digest, parse_name
from crank.domain.json import JsonObject, loads_strict
from crank.domain.rules.enrolment import check_patterns
from crank.domain.trust import TrustBundle
from crank.errors import CrankError, InvalidRequest, NotAllowed, ProtocolError, Unavailable, UntrustedPeer
from crank.ports import Clock
from crank.security import Verifier, peer_identity
from crank.security.contexts import first_contact_context, newcomer_context

CONNECT_SEC = 15.0
ANSWER_BYTES_MAX = 256 * 1024
ROOTS_MAX = 4
_PATH = "/v1/nodes/join"


@dataclass(frozen=True, slots=True)
class JoinWanted:
    """What the pasted command says.

    api, workers  where the controller listens: `https://host:port`, and `host:port`
    roots         SHA-256 of the root certificates that its trust domain may have
    token         None: the node's own certificate was registered
    """

    api: str
    workers: str
    roots: tuple[Digest, ...]
    token: str | None = field(repr=False)


def join(settings: Settings, wanted: JoinWanted, clock: Clock) -> Member:
    """Join, and keep what came of it. Safe to call again after any failure, with the same token.

    Raises UntrustedPeer (`root_mismatch`: nothing was sent), NotAllowed (`join_refused`), Unavailable, ProtocolError.
    """
    folder = member_dir(settings)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key, own = node_key(settings, clock.now_us())
    # Kept from before it is sent until its certificate is here: an answer that was lost can be asked for again.
    worker_key = kept_key(folder / "worker-key.pem")
    trust_domain, roots = _pinned(wanted)
    evidence = sign_evidence(
        key, own, request=signing_request(worker_key), audience=wanted.roots, machine=_machine()
    )
    body = {"evidence": evidence, **({} if wanted.token is None else {"token": wanted.token})}
    link = _proven(wanted.api, trust_domain, roots, clock)
    status, answer = _exchange(link, wanted.api, "POST", json.dumps(body).encode())
    if status != 200:
        raise _refused(status, answer)
    member, chains = _read_answer(answer, wanted, trust_domain, (key, worker_key))
    _keep(settings, member, chains, worker_key)
    return member


# --- who answers ----------------------------------------------------------------------------------


def _pinned(wanted: JoinWanted) -> tuple[str, tuple[bytes, ...]]:
    """Return the trust domain and its roots, those alone that are pinned. Raises UntrustedPeer, Unavailable."""
    link = _connect(wanted.api, first_contact_context())
    status, answer = _exchange(link, wanted.api, "GET", None)
    if status != 200:
        raise Unavailable(f"What answers at {wanted.api} is no controller of this version (status {status}).")
    shown = _certificates(answer.get("x509_authorities"))
    found = tuple(one for one in shown if hashlib.sha256(one).hexdigest() in wanted.roots)
    if not found:
        raise UntrustedPeer(
            f"What answers at {wanted.api} is not the controller that the command is of: it shows other roots.",
            code="root_mismatch",
            fix="Nothing was sent. Make a new invite on the controller; if this comes again, somebody stands between.",
        )
    # A root names its own trust domain, so the pin vouches for that name, too.
    names = {domain_of(one) for one in found}
    if len(names) != 1:
        raise UntrustedPeer("The pinned roots are of several trust domains.", code="root_mismatch")
    return names.pop(), found


def domain_of(root: bytes) -> str:
    """Return the trust domain that a root names. Raises UntrustedPeer (`root_mismatch`)."""
    try:
        names = x509.load_der_x509_certificate(root).extensions.get_extension_for_class(x509.SubjectAlternativeName)
        (uri,) = names.value.get_values_for_type(x509.UniformResourceIdentifier)
        return parse_trust_domain(uri.removeprefix("spiffe://"))
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, InvalidRequest) as fault:
        raise UntrustedPeer("A root that the command pins names no trust domain.", code="root_mismatch") from fault


def _proven(api: str, trust_domain: str, roots: tuple[bytes, ...], clock: Clock) -> ssl.SSLSocket:
    """Connect to a controller of this trust domain. Raises UntrustedPeer, Unavailable."""
    bundle = TrustBundle(trust_domain, 0, 0, roots)
    link = _connect(api, newcomer_context(roots))
    try:
        peer = Verifier(lambda domain: bundle if domain == trust_domain else None, now_us=clock.now_us).peer(link)
        if peer.spiffe_id.trust_domain != trust_domain or peer.spiffe_id.path[:-1] != ("controller",):
            raise UntrustedPeer(f"What answers at {api} is {peer.spiffe_id}, not a controller of {trust_domain}.")
    except BaseException:
        link.close()
        raise
    return link


def _connect(api: str, context: ssl.SSLContext) -> ssl.SSLSocket:
    address = urlsplit(api)
    try:
        plain = socket.create_connection((address.hostname or "", address.port or 443), CONNECT_SEC)
        try:
            # No name is asked for: the controller shows its own certificate then, not one of a public address.
            return context.wrap_socket(plain)
        except BaseException:
            plain.close()
            raise
    except ssl.SSLCertVerificationError as fault:
        raise UntrustedPeer(
            f"What answers at {api} cannot prove to be of the pinned roots: {fault.verify_message}.",
            code="root_mismatch",
            fix="Nothing was sent. Check both machines' clocks; then make a new invite on the controller.",
        ) from fault
    except OSError as fault:
        raise Unavailable(
            f"The controller at {api} does not answer: {fault.strerror or fault}.",
            fix="Check the address, that the controller listens there (CRANK_BIND), and what lies between.",
        ) from fault


def _exchange(link: ssl.SSLSocket, api: str, method: str, body: bytes | None) -> tuple[int, JsonObject]:
    """Ask once on a connection and close it. Raises Unavailable, ProtocolError."""
    address = urlsplit(api)
    connection = http.client.HTTPConnection(address.hostname or "", address.port or 443, timeout=CONNECT_SEC)
    connection.sock = link
    headers = {"Accept": "application/json", **({} if body is None else {"Content-Type": "application/json"})}
    try:
        connection.request(method, _PATH, body=body, headers=headers)
        answer = connection.getresponse()
        raw = answer.read(ANSWER_BYTES_MAX + 1)
        document = loads_strict(raw) if len(raw) <= ANSWER_BYTES_MAX else None
    except (OSError, http.client.HTTPException) as fault:
        raise Unavailable(f"The connection to {api} was cut.", detail=str(fault)) from fault
    except InvalidRequest as fault:
        raise ProtocolError(f"What answers at {api} does not speak as a controller does.") from fault
    finally:
        connection.close()
        link.close()
    if not isinstance(document, dict):
        raise ProtocolError(f"What answers at {api} does not speak as a controller does.")
    return answer.status, document


def _refused(status: int, problem: JsonObject) -> CrankError:
    """Return why the controller, which has proved to be one, does not let this machine in."""
    message, code, fix = (str(problem.get(name) or "")[:500] for name in ("detail", "code", "fix"))
    if status == 503:
        return Unavailable(message, code=code or None, fix=fix or None)
    return NotAllowed(message or f"The controller refused (status {status}).", code=code or None, fix=fix or None)


# --- what it answers ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Chains:
    node: list[bytes]
    worker: list[bytes]
    roots: list[bytes]


def _read_answer(
    answer: JsonObject,
    wanted: JoinWanted,
    trust_domain: str,
    keys: tuple[ec.EllipticCurvePrivateKey, ec.EllipticCurvePrivateKey],
) -> tuple[Member, _Chains]:
    """Hold the answer against what was asked. Raises ProtocolError."""
    try:
        member = Member(
            node_id=parse_name(answer["node_id"], field="node_id"),
            worker_id=parse_name(answer["worker_id"], field="worker_id"),
            trust_domain=trust_domain,
            api=wanted.api,
            workers=wanted.workers,
            capabilities=check_patterns(answer["capabilities"]),
            attestation=str(answer["attestation"]),
            returns=bool(answer["returns"]),
        )
        names = ("node_svid", "worker_svid", "x509_authorities")
        chains = _Chains(*(list(_certificates(answer[name])) for name in names))
        own = [("node", member.node_id, chains.node, keys[0]), ("worker", member.worker_id, chains.worker, keys[1])]
        for kind, name, chain, key in own:
            _check_leaf(chain, key, make_spiffe_id(trust_domain, kind, name))
    except (KeyError, TypeError, IndexError, CrankError) as fault:
        raise ProtocolError("The controller's answer is not that to what was asked.", detail=str(fault)) from fault
    return member, chains


def _check_leaf(chain: Sequence[bytes], key: ec.EllipticCurvePrivateKey, expected: SpiffeId) -> None:
    leaf = x509.load_der_x509_certificate(chain[0]).public_key()
    if not isinstance(leaf, ec.EllipticCurvePublicKey) or spki(leaf) != spki(key.public_key()):
        raise ProtocolError("A certificate is for another key.")
    if peer_identity(chain[0]) != expected:
        raise ProtocolError(f"A certificate is not for {expected}.")


def _certificates(shown: Any) -> tuple[bytes, ...]:
    """Read certificates in base64. Raises ProtocolError."""
    if not isinstance(shown, list) or not 1 <= len(shown) <= 2 * ROOTS_MAX:
        raise ProtocolError("The controller shows no certificates, or too many.")
    try:
        ders = [base64.b64decode(one, validate=True) for one in shown]
        loaded = [x509.load_der_x509_certificate(der) for der in ders]
    except (ValueError, TypeError, UnsupportedAlgorithm) as fault:
        raise ProtocolError("The controller shows what is no certificate.") from fault
    return tuple(one.public_bytes(serialization.Encoding.DER) for one in loaded)


def _keep(settings: Settings, member: Member, chains: _Chains, worker_key: ec.EllipticCurvePrivateKey) -> None:
    """Write the identities, and last of all that this machine has joined."""
    identity = as_member(settings).identity_dir
    identity.mkdir(mode=0o700, parents=True, exist_ok=True)
    form, secret = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    write_whole(identity / "key.pem", worker_key.private_bytes(serialization.Encoding.PEM, form, secret), mode=0o600)
    write_whole(identity / "cert.pem", pem(chains.worker), mode=0o644)
    write_whole(identity / "ca.pem", pem(chains.roots), mode=0o644)
    write_whole(member_dir(settings) / "cert.pem", pem(chains.node), mode=0o644)
    write_whole(member_dir(settings) / "ca.pem", pem(chains.roots), mode=0o644)
    write_member(settings, member)
    # The next time it is another one.
    (member_dir(settings) / "worker-key.pem").unlink()


def _machine() -> JsonObject:
    """Return what this machine says of itself: for people who look at the list of nodes, and for nothing else."""
    return {
        "host": platform.node()[:200],
        "system": f"{platform.system()} {platform.release()}"[:200],
        "architecture": platform.machine()[:64],
        "cpus": os.cpu_count() or 0,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "software": f"crank/{crank.__version__}",
    }
