"""The path from a leaf to one trust domain's own authorities (RFC 5280 section 6), and what SPIFFE adds to it.

The path is found and its signatures, dates, lengths and extensions are checked by cryptography's verifier, which is
given the bundle of one domain and nothing else. It is stricter than OpenSSL where it cannot judge: a name constraint
on URIs is refused (there is no half-checked constraint). What it leaves open is checked here and in `certificates`.
"""

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.x509 import verification

from crank.errors import UntrustedPeer
from crank.security.certificates import check_authority, load_certificate

# The leaf, what signed it, and the root, which some show as well.
CHAIN_CERTIFICATES_MAX = 5
_BETWEEN_MAX = CHAIN_CERTIFICATES_MAX - 2
ANCHORS_MAX = 32


def load_chain(chain: Sequence[bytes]) -> list[x509.Certificate]:
    """Parse what a peer showed, the leaf first. Raises UntrustedPeer."""
    if not chain:
        raise UntrustedPeer("The peer showed no certificate.")
    if len(chain) > CHAIN_CERTIFICATES_MAX:
        raise UntrustedPeer(f"The peer showed more than {CHAIN_CERTIFICATES_MAX} certificates.")
    return [load_certificate(der) for der in chain]


def find_path(
    shown: Sequence[x509.Certificate], anchors: Sequence[bytes], trust_domain: str, at: datetime
) -> Sequence[x509.Certificate]:
    """Return the path from the leaf to one of the anchors, which are all of this one domain.

    at  the time at which every certificate of it must be valid
    Raises UntrustedPeer.
    """
    if not anchors:
        # SPIFFE Trust Domain and Bundle, section 4.1.3: without keys nobody is believed.
        raise UntrustedPeer(f"The bundle of {trust_domain} holds no authority, so nobody in it is believed.")
    if len(anchors) > ANCHORS_MAX:
        raise UntrustedPeer(f"The bundle of {trust_domain} holds more than {ANCHORS_MAX} authorities.")
    store = verification.Store([load_certificate(der) for der in anchors])
    verifier = (
        verification.PolicyBuilder()
        .store(store)
        .time(at)
        .max_chain_depth(_BETWEEN_MAX)
        .build_client_verifier()
    )
    try:
        path = verifier.verify(shown[0], list(shown[1:])).chain
    except (verification.VerificationError, ValueError, x509.DuplicateExtension) as fault:
        raise UntrustedPeer(
            f"The peer's certificate is not from the authority of {trust_domain}, or not valid now.", detail=str(fault)
        ) from fault
    for certificate in path[1:]:
        check_authority(certificate, trust_domain)
    return path
