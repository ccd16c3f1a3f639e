"""Who may run a job, and who runs it best: feasible first, then ranked, then one chosen."""

from collections.abc import Sequence
from dataclasses import dataclass

from crank.domain.capability import Capability, version_matches
from crank.domain.ids import WorkerId
from crank.domain.job import JobRequest, Refusal
from crank.domain.trust import Attestation
from crank.domain.worker import KnownWorker

UNSATISFIED = "unsatisfied-capability"
NO_LOCAL = "no-local-satisfier"


@dataclass(frozen=True, slots=True)
class Offer:
    """One capability of one worker, with the slots that are free now, and how well its machine proved itself."""

    worker_id: WorkerId
    node_id: str
    capability: Capability
    free_slots: int
    attestation: Attestation = Attestation.NONE


@dataclass(frozen=True, slots=True)
class Placed:
    """The worker that gets the job, and the capability it runs it by."""

    worker_id: WorkerId
    capability: Capability


@dataclass(frozen=True, slots=True)
class Busy:
    """Somebody can run the job, but nobody now; `sentence` says what it waits for."""

    sentence: str


def offers_of(worker: KnownWorker, free_slots: int) -> list[Offer]:
    """List what a worker offers."""
    return [
        Offer(worker.worker_id, worker.node_id, capability, free_slots, worker.attestation)
        for capability in worker.capabilities
    ]


def satisfiers(
    request: JobRequest, offers: Sequence[Offer], mount_nodes: frozenset[str], *, floor: Attestation
) -> list[Offer] | Refusal:
    """Return the offers that could ever run the request, or say which constraint nobody meets.

    Constraints are tried in a fixed order, each on what the ones before it left, so that the refusal
    names the first that leaves nobody. `mount_nodes` are the nodes that own the request's mounts, `floor` the least
    level of attestation that this node places any job on, whatever it asks for.
    """
    left = [offer for offer in offers if offer.capability.name == request.capability]
    if not left:
        return Refusal(
            UNSATISFIED,
            f"No known worker offers the capability {request.capability}.",
            "List what is offered with GET /v1/capabilities, or start a worker that offers it.",
            "capability",
        )
    least = max(floor, request.attestation or Attestation.NONE)
    attested = [offer for offer in left if offer.attestation >= least]
    if not attested:
        return _unproven(request.capability, least, left, of_node=floor == least)
    left = attested
    for constraint, wanted, keep in (
        ("version", request.version, lambda o: version_matches(request.version or "", o.capability.version)),
        ("env_profile", request.env_profile, lambda o: o.capability.env_profile == request.env_profile),
        ("accelerator", request.accelerator, lambda o: o.capability.accelerator == request.accelerator),
        ("gpu_model", request.gpu_model, lambda o: o.capability.gpu_model == request.gpu_model),
        ("timeout_sec", request.timeout_sec, lambda o: (request.timeout_sec or 0) <= o.capability.timeout_sec),
        (
            "memory_bytes",
            request.memory_bytes,
            lambda o: (request.memory_bytes or 0) <= (o.capability.memory_bytes or 0),
        ),
        # A worker that does not name one of these does not keep it, so it cannot run a job that asks for it.
        ("cpu_sec", request.cpu_sec, lambda o: (request.cpu_sec or 0) <= o.capability.limits.get("cpu_sec", 0)),
        ("idle_sec", request.idle_sec, lambda o: (request.idle_sec or 0) <= o.capability.limits.get("idle_sec", 0)),
        (
            "no_output_sec",
            request.no_output_sec,
            lambda o: (request.no_output_sec or 0) <= o.capability.limits.get("no_output_sec", 0),
        ),
    ):
        if wanted is None:
            continue
        kept = [offer for offer in left if keep(offer)]
        if not kept:
            return _unmet(request.capability, constraint, str(wanted), left)
        left = kept
    local = [offer for offer in left if mount_nodes <= {offer.node_id}]
    if not local:
        return Refusal(
            NO_LOCAL,
            "No worker that could run this is on the node that owns the mounted folders.",
            "Start a worker on that node, or send the files with the job.",
            "mounts",
        )
    return local


def _unproven(capability: str, least: Attestation, left: Sequence[Offer], *, of_node: bool) -> Refusal:
    has = ", ".join(level.label for level in sorted({offer.attestation for offer in left}))
    needs = f"this node asks for {least.label}" if of_node else f"the request asks for {least.label}"
    other = "lower CRANK_ATTESTATION_MIN" if of_node else "ask for less"
    return Refusal(
        UNSATISFIED,
        f"Workers offer {capability}, but on no machine that proved itself well enough: {needs}; they have: {has}.",
        f"Join a machine at that level, or {other}; 'crank node list' shows the levels.",
        "attestation",
    )


def _unmet(capability: str, constraint: str, wanted: str, left: Sequence[Offer]) -> Refusal:
    values = sorted({_offered(offer, constraint) for offer in left})
    return Refusal(
        UNSATISFIED,
        f"Workers offer {capability}, but none with {constraint} = {wanted}; they have: {', '.join(values)}.",
        f"Change constraints to what is offered, or start a worker with {constraint} = {wanted}.",
        constraint,
    )


def _offered(offer: Offer, constraint: str) -> str:
    if constraint in {"timeout_sec", "memory_bytes"}:
        return f"at most {getattr(offer.capability, constraint) or 0:g}"
    if constraint in {"cpu_sec", "idle_sec", "no_output_sec"}:
        return f"at most {offer.capability.limits.get(constraint, 0):g}"
    return str(getattr(offer.capability, constraint))


def choose(
    request: JobRequest, offers: Sequence[Offer], mount_nodes: frozenset[str], *, floor: Attestation
) -> Placed | Busy:
    """Choose among offers of workers that are connected now: a CPU before a GPU that was not asked for,
    then the newest version, then the most free slots, then the name, so that the choice repeats.
    """
    able = satisfiers(request, offers, mount_nodes, floor=floor)
    if isinstance(able, Refusal):
        return Busy("Waiting for a worker that offers this to come back.")
    free = [offer for offer in able if offer.free_slots > 0]
    if not free:
        workers = len({offer.worker_id for offer in able})
        return Busy(f"Waiting for a free slot: 0 of {workers} worker(s) that can run it have one.")
    best = min(free, key=rank)
    return Placed(best.worker_id, best.capability)


def rank(offer: Offer) -> tuple[str, tuple[int, ...], int, str]:
    """Return what sorts offers, the best first."""
    newest = tuple(-int(number) for number in offer.capability.version.split("."))
    return str(offer.capability.accelerator), newest, -offer.free_slots, offer.worker_id
