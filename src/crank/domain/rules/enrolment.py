"""Which nodes may join, what their workers may offer, and whose a manifest is. Every refusal is a value."""

import re
from collections.abc import Collection, Sequence
from typing import Final

from crank.domain.capability import CAPABILITY_NAME_CHARS_MAX, Capability
from crank.domain.enrolment import Enrolment, Manifest
from crank.domain.identity import SpiffeId, WorkloadKind
from crank.domain.ids import Digest, WorkerId
from crank.domain.job import Refusal
from crank.domain.trust import Peer
from crank.errors import InvalidRequest, TooLarge

JOIN_PREFIX: Final = "crank_join_"
EVERYTHING: Final = ("*",)
PATTERNS_MAX: Final = 64
# Two machines' clocks may differ by this much; what was signed longer ago, or later than now, is not believed.
SKEW_SEC: Final = 300
_UNIQUE_DIGITS = 8
# With a hyphen and those digits, and the worker's own word before it, it must still be a name.
NAME_CHARS_MAX: Final = 40
_PATTERN = re.compile(r"\*|[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*\.\*|[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)+")


def make_token(chance: str) -> str:
    """Make the text of a join token from 256 random bits: recognisable wherever it turns up."""
    return JOIN_PREFIX + chance


def make_node_id(name: str, unique: str) -> str:
    """Make the id of a node from its name and the random tail of a fresh UUID, so that none ever comes back."""
    return f"{name}-{unique.replace('-', '')[-_UNIQUE_DIGITS:]}"


def worker_of(node_id: str) -> WorkerId:
    """Return the id of the one worker of a joined node."""
    return WorkerId(f"main-{node_id}")


def check_patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    """Return patterns of capabilities, each once, in order. Raises InvalidRequest, TooLarge."""
    if len(patterns) > PATTERNS_MAX:
        raise TooLarge(f"A node has at most {PATTERNS_MAX} patterns of capabilities.", field="capabilities")
    for pattern in patterns:
        if len(pattern) > CAPABILITY_NAME_CHARS_MAX or not _PATTERN.fullmatch(pattern):
            raise InvalidRequest(
                f"{pattern[:80]!r} is no pattern of capabilities.",
                code="invalid_pattern",
                field="capabilities",
                fix="Write an exact name (document.convert), a family (document.*), or * for everything.",
            )
    return tuple(dict.fromkeys(patterns)) or EVERYTHING


def allows(patterns: Sequence[str], capability: str) -> bool:
    """Tell whether one of the patterns stands for this capability."""
    return any(_matches(pattern, capability) for pattern in patterns)


def _matches(pattern: str, capability: str) -> bool:
    if pattern.endswith("*"):
        # The dot before the star belongs to it: `document.*` is not `documents.convert`.
        return capability.startswith(pattern[:-1])
    return pattern == capability


def may_join(enrolment: Enrolment | None, keys: Digest, now_us: int) -> bool:
    """Tell whether the token that led to this enrolment may be used for these keys now.

    Once used it is good for the same keys alone, for as long as it would have lived: an answer that was lost on its
    way can be fetched again, by nobody else.
    """
    if enrolment is None or enrolment.forgotten_us is not None or enrolment.expires_us is None:
        return False
    return now_us < enrolment.expires_us and enrolment.keys in (None, keys)


def may_return(enrolment: Enrolment | None, thumbprint: Digest) -> bool:
    """Tell whether a node may prove itself by the certificate with this thumbprint."""
    return enrolment is not None and enrolment.forgotten_us is None and enrolment.thumbprint == thumbprint


def place_refusal(enrolment: Enrolment | None, node_id: str, own_node_id: str) -> Refusal | None:
    """Return why a worker with this enrolment (None: it has none) may not speak for a node, or None.

    Without an enrolment a worker is the controller's own machine's. Only so it may name that machine's node, whose
    mounts jobs are routed by.
    """
    if enrolment is None:
        held = node_id == own_node_id
    else:
        held = enrolment.forgotten_us is None and node_id == enrolment.node_id
    if held:
        return None
    return Refusal(
        "node_not_enrolled",
        f"This worker may not speak for the node {node_id[:64]!r}.",
        "Join that machine with a new invite: crank node invite.",
        "node_id",
    )


def offer_refusal(enrolment: Enrolment | None, capabilities: Sequence[Capability]) -> Refusal | None:
    """Return why a worker may not offer these, or None; a worker of the controller's own machine may offer all."""
    if enrolment is None:
        return None
    for capability in capabilities:
        if not allows(enrolment.capabilities, capability.name):
            return Refusal(
                "capability_not_enrolled",
                f"The node {enrolment.name} may not offer {capability.name}.",
                "Invite it with --capability for what it shall offer, or let its worker offer less.",
                capability.name,
            )
    return None


def certificate_refusal(peer: Peer, kind: str) -> Refusal | None:
    """Return why a certificate does not serve as one of this kind, whatever its SPIFFE ID says, or None.

    One without the extension was issued before there was one.
    """
    if peer.workload is None or peer.workload.kind == kind:
        return None
    return _mismatch(f"The certificate of {peer.spiffe_id} was issued to a {peer.workload.kind}, not to a {kind}.")


def worker_refusal(
    peer: SpiffeId, shown: Peer | None, *, trust_domain: str, worker_id: str, instances: Collection[str] | None
) -> Refusal | None:
    """Return why a certificate does not speak for the worker that says hello with it, or None.

    instances  to which of them it may have been issued; None: to any, because a program begins with a certificate that
               is older than itself
    """
    if peer.trust_domain != trust_domain or peer.path != (WorkloadKind.WORKER, worker_id):
        return _mismatch(f"The certificate of {peer} does not speak for worker {worker_id[:64]!r}.")
    refused = None if shown is None else certificate_refusal(shown, WorkloadKind.WORKER)
    workload = None if shown is None else shown.workload
    if refused is None and workload is not None and instances is not None and workload.instance_id not in instances:
        return _mismatch(f"The certificate of {peer} was issued to another instance, {workload.instance_id}.")
    return refused


def _mismatch(message: str) -> Refusal:
    fix = "Start the worker with the identity that this node issued for it."
    return Refusal("identity_mismatch", message, fix, "certificate")


def manifest_refusal(
    manifest: Manifest, *, worker_id: str, instance_id: str, node_id: str, now_sec: float
) -> Refusal | None:
    """Return why a manifest whose signature holds is not that of the worker that sends it now, or None."""
    for name, said, true in (
        ("worker_id", manifest.worker_id, worker_id),
        ("instance_id", manifest.instance_id, instance_id),
        ("node_id", manifest.node_id, node_id),
    ):
        if said != true:
            return _not_believed(f"it is that of {name} {said[:64]!r}, not of {true[:64]!r}", name)
    if abs(now_sec - manifest.signed_sec) > SKEW_SEC:
        return _not_believed(f"it was signed more than {SKEW_SEC} s before or after this machine's clock", "iat")
    return None


def _not_believed(cause: str, constraint: str) -> Refusal:
    return Refusal(
        "manifest_not_believed",
        f"The worker's manifest is not believed: {cause}.",
        "Check both machines' clocks; the worker signs a new one when it connects again.",
        constraint,
    )
