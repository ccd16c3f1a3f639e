"""A machine that wants to join, as far as a controller sees it: two keys, a certificate, evidence."""

import hashlib
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from crank.adapters.signed import own_certificate, sign_evidence, signing_request, thumbprint_of
from crank.controller.desk import Desk
from crank.controller.issue import authority_of
from crank.controller.nodes import roots_of
from crank.domain.ids import Digest

_NOW_US = 1_790_000_000_000_000


class Attester:
    """Keys of its own making."""

    def __init__(self) -> None:
        self.node_key = ec.generate_private_key(ec.SECP256R1())
        self.worker_key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = own_certificate(self.node_key, _NOW_US)
        self.thumbprint = thumbprint_of(self.certificate)

    def evidence(self, desk: Desk | None = None, **changed: Any) -> str:
        """Sign evidence for the controller of a desk, or for the audience that is given."""
        audience = (Digest(hashlib.sha256(b"nobody").hexdigest()),) if desk is None else roots_of(authority_of(desk))
        options: dict[str, Any] = {
            "request": signing_request(self.worker_key),
            "audience": audience,
            "machine": {"host": "box", "cpus": 2},
        }
        return sign_evidence(self.node_key, self.certificate, **{**options, **changed})
