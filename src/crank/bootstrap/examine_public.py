"""What `crank doctor --public URL` looks at: whether others can reach this node at an address, as far as that is seen
from here. The node's secret is sent only to who proved the name in the address.
"""

import http.client
import json
import re
import socket
import ssl
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from crank.adapters.clock import SystemClock
from crank.adapters.https_download import is_public
from crank.api.public_name import PublicName, holds, names_of
from crank.bootstrap.finding import Finding, State
from crank.bootstrap.node import node_info
from crank.config import Settings
from crank.errors import CrankError, InvalidRequest

ANSWER_SEC = 10.0
ANSWER_BYTES_MAX = 2 * 1024 * 1024
DAYS_LOW = 7
_ADDRESS = re.compile(r"https://(?P<host>[A-Za-z0-9.-]{1,253})(?::(?P<port>[1-9]\d{0,4}))?/?")
_OPEN = "Let the request through to this node, and nothing but it: a tunnel or a port forward, to the API's port."


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the node is said to be."""

    host: str
    port: int

    @property
    def origin(self) -> str:
        return f"https://{self.host}" if self.port == 443 else f"https://{self.host}:{self.port}"


def examine_public(settings: Settings, url: str) -> Sequence[Finding]:
    """Look at an address from here. Raises InvalidRequest when it is none."""
    match = _ADDRESS.fullmatch(url)
    if match is None or not 0 < int(match["port"] or 443) < 65_536:
        raise InvalidRequest(
            f"{url[:80]!r} is not an https address of a host.",
            code="invalid_url",
            field="public",
            fix="Give it as https://crank.example.org, without a path.",
        )
    place = _Place(match["host"].lower(), int(match["port"] or 443))
    findings = [*_name(place), *_port(place)]
    proven = _proof(place)
    findings += proven
    if any(finding.state == "fail" for finding in findings):
        return findings
    return [*findings, *_answers(place), *_document(place), *_credential(settings, place)]


def _name(place: _Place) -> Sequence[Finding]:
    try:
        found = sorted(
            {str(entry[4][0]) for entry in socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)}
        )
    except OSError as fault:
        cause = f"{place.host} is not found: {fault.strerror}"
        return [
            Finding("public name", "fail", cause, "Make a DNS record for it, or use the name that the tunnel gave you.")
        ]
    text = f"{place.host} is {', '.join(found[:4])}"
    if not any(is_public(address) for address in found):
        return [
            Finding("public name", "warn", f"{text}: only this network can reach that", "Point it to a public address.")
        ]
    return [Finding("public name", "ok", text)]


def _port(place: _Place) -> Sequence[Finding]:
    if place.port != 443:
        return [
            Finding(
                "public port", "warn", f"port {place.port}; ChatGPT calls 443 alone", "Forward 443 to the API's port."
            )
        ]
    return [Finding("public port", "ok", "443")]


def _proof(place: _Place) -> Sequence[Finding]:
    """Shake hands as a stranger does, who trusts what the system trusts."""
    try:
        with (
            socket.create_connection((place.host, place.port), timeout=ANSWER_SEC) as line,
            ssl.create_default_context().wrap_socket(line, server_hostname=place.host) as proven,
        ):
            version, shown = proven.version(), proven.getpeercert(binary_form=True)
    except ssl.SSLCertVerificationError as fault:
        fix = "Give a certificate that others trust, with its whole chain: crank up --tls-cert FILE --tls-key FILE."
        return [Finding("public certificate", "fail", f"nobody else would trust it: {fault.verify_message}", fix)]
    except (OSError, ssl.SSLError) as fault:
        return [Finding("public connection", "fail", f"no TLS at {place.origin}: {fault}", _OPEN)]
    assert shown is not None, "a proven server has shown a certificate"
    return [
        Finding("public TLS", "ok", f"{version}, certificate proven for {place.host}"),
        _until("public certificate", x509.load_der_x509_certificate(shown)),
    ]


def _until(name: str, certificate: x509.Certificate) -> Finding:
    left = certificate.not_valid_after_utc - datetime.fromtimestamp(SystemClock().now_us() / 1e6, UTC)
    state: State = "fail" if left.total_seconds() < 0 else "warn" if left.days < DAYS_LOW else "ok"
    text = f"valid until {certificate.not_valid_after_utc:%Y-%m-%d}"
    return Finding(name, state, text, "" if state == "ok" else "Renew it in place; a running node reads it anew.")


def _ask(place: _Place, path: str, secret: str | None = None) -> tuple[int, Any]:
    """Ask one thing of a server that proves its name anew; a redirect is an answer like others. Raises OSError."""
    line = http.client.HTTPSConnection(place.host, place.port, timeout=ANSWER_SEC, context=ssl.create_default_context())
    try:
        line.request("GET", path, headers={} if secret is None else {"Authorization": f"Bearer {secret}"})
        answer = line.getresponse()
        body = answer.read(ANSWER_BYTES_MAX)
        return answer.status, json.loads(body)
    except (ValueError, http.client.HTTPException) as fault:
        raise OSError(f"the answer is none of Crank's: {fault}") from fault
    finally:
        line.close()


def _answers(place: _Place) -> Sequence[Finding]:
    try:
        status, body = _ask(place, "/healthz")
    except OSError as fault:
        return [Finding("public answer", "fail", str(fault), _OPEN)]
    if status != 200 or not isinstance(body, dict) or body.get("status") != "ok":
        return [Finding("public answer", "fail", f"/healthz answers {status}, and not as Crank does", _OPEN)]
    return [Finding("public answer", "ok", f"Crank {body.get('version')} answers")]


def _document(place: _Place) -> Sequence[Finding]:
    name = "GPT Actions document"
    try:
        status, body = _ask(place, "/openapi/actions.json")
        servers = [each["url"] for each in body["servers"]] if status == 200 else []
    except (OSError, KeyError, TypeError) as fault:
        return [Finding(name, "fail", f"/openapi/actions.json cannot be read: {fault}", _OPEN)]
    if servers != [place.origin]:
        fix = f"Start the node with --public-url {place.origin}."
        return [Finding(name, "fail", f"it names {', '.join(servers) or 'no server'}, not {place.origin}", fix)]
    return [Finding(name, "ok", f"{place.origin}/openapi/actions.json")]


def _credential(settings: Settings, place: _Place) -> Sequence[Finding]:
    name = "public credential"
    try:
        status, _ = _ask(place, "/v1/capabilities")
        if status != 401:
            return [
                Finding(
                    name,
                    "fail",
                    f"without a credential it answers {status}, not 401",
                    "Take it down; something in front adds one.",
                )
            ]
        try:
            secret = Path(node_info(settings)["token_file"]).read_text("ascii").strip()
        except (CrankError, OSError):
            return [
                Finding(
                    name, "warn", "no node runs here, so its secret was not tried", "Run this on the node's machine."
                )
            ]
        status, _ = _ask(place, "/v1/capabilities", secret)
    except OSError as fault:
        return [Finding(name, "fail", str(fault), _OPEN)]
    if status != 200:
        fix = "Something in front drops the Authorization header, or another node answers there."
        return [Finding(name, "fail", f"with the node's secret it answers {status}", fix)]
    return [Finding(name, "ok", "refused without the secret, accepted with it")]


def own_certificate(settings: Settings) -> Sequence[Finding]:
    """Look at the certificate that the operator gave for the public name."""
    if settings.tls_cert is None or settings.tls_key is None:
        return []
    name = "public certificate file"
    try:
        PublicName(settings.tls_cert, settings.tls_key)
        certificate = x509.load_pem_x509_certificate(settings.tls_cert.read_bytes())
        mode = settings.tls_key.stat().st_mode
    except (CrankError, OSError) as fault:
        return [Finding(name, "fail", str(fault), getattr(fault, "fix", ""))]
    findings = [_until(name, certificate)]
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        findings.append(Finding("public key file", "warn", "others may read the key", f"chmod go= {settings.tls_key}"))
    host = settings.public_url.removeprefix("https://").partition(":")[0]
    if host and not holds(names_of(certificate), host):
        findings.append(
            Finding(name, "fail", f"it is not for {host}", "Get one for that name, or correct CRANK_PUBLIC_URL.")
        )
    return findings
