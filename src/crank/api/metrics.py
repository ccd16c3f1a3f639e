"""`/metrics`: the Prometheus text format, version 0.0.4, written here because it is three kinds of lines."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated

from fastapi import APIRouter, Request, Security
from starlette.responses import PlainTextResponse, Response

from crank.api.documents import desk_of, refusals
from crank.api.peer import Caller, bearer
from crank.api.strict import StrictRoute
from crank.controller.desk import Desk
from crank.controller.tally import Histogram
from crank.domain.job import Status
from crank.domain.session import SessionState

router = APIRouter(route_class=StrictRoute, tags=["node"])
From = Annotated[Caller, Security(bearer)]
Labels = Mapping[str, str]
_LIVING = (SessionState.OPENING, SessionState.OPEN)
_VERSION = "text/plain; version=0.0.4; charset=utf-8"
# Every family with its kind and meaning; the reference page is made of these.
FAMILIES: Mapping[str, tuple[str, str]] = {
    "crank_jobs": ("gauge", "Jobs that the node knows, by status."),
    "crank_sessions": ("gauge", "Sessions that live now, by state."),
    "crank_workers_connected": ("gauge", "Workers that are connected."),
    "crank_slots": ("gauge", "Slots of connected workers."),
    "crank_slots_free": ("gauge", "Slots that take a job now."),
    "crank_sandboxes_parked": ("gauge", "Sandboxes that stand and wait for a job, by worker and profile."),
    "crank_sandboxes_burnt_total": (
        "counter", "Sandboxes thrown away as doubtful since their worker started, by worker and profile.",
    ),
    "crank_jobs_ended_total": ("counter", "Jobs that ended, by reason and tier of isolation."),
    "crank_denials_total": ("counter", "What layers refused, by layer and by whose word it is."),
    "crank_pool_total": ("counter", "Sandboxes that stood ready (hit) or were raised for their job (miss), by result."),
    "crank_identities_issued_total": ("counter", "Certificates that were issued, by kind of their holder."),
    "crank_identity_renewals_total": ("counter", "Requests of peers for their next certificate, by result."),
    "crank_identities_revoked": ("gauge", "What is revoked now: identities as a whole, and certificates that had not expired."),
    "crank_links_renewed_total": ("counter", "Links of workers that were followed by the next one without a gap."),
    "crank_worker_identity_seconds": ("gauge", "Time until the certificate that a worker's link shows has expired, by worker."),
    "crank_job_memory_peak_bytes": ("histogram", "Peak memory of a job."),
    "crank_sandbox_setup_seconds": ("histogram", "Time until a job's sandbox was at hand, by pool (hit, miss)."),
}  # fmt: skip


class Metrics(PlainTextResponse):
    """The Prometheus text format, version 0.0.4."""

    media_type = "text/plain"


@router.get(
    "/metrics", operation_id="metrics", summary="Read counters (Prometheus text)", response_class=Metrics,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **refusals(406)},
)  # fmt: skip
async def metrics(request: Request, caller: From) -> Response:
    """Return gauges of now, and counters since the controller started."""
    desk = desk_of(request)
    counts = await desk.store.read(lambda tx: {status: tx.jobs.count(status) for status in Status})
    sessions = await desk.store.read(lambda tx: [session.state for session in tx.sessions.live()])
    living = [({"state": str(state)}, float(sessions.count(state))) for state in _LIVING]
    lines = [*_now(desk, counts), *_family("crank_sessions", living), *_parked(desk), *_since_start(desk)]
    lines += _identities(desk)
    return Metrics("\n".join(lines) + "\n", headers={"content-type": _VERSION})


def _now(desk: Desk, counts: Mapping[Status, int]) -> Iterator[str]:
    now_sec = desk.clock.monotonic_sec()
    live = desk.roster.live()
    yield from _family("crank_jobs", [({"status": str(status)}, float(count)) for status, count in counts.items()])
    yield from _family("crank_workers_connected", [({}, len(live))])
    yield from _family("crank_slots", [({}, sum(worker.known.slots for worker in live))])
    yield from _family("crank_slots_free", [({}, sum(worker.free_slots(now_sec) for worker in live))])


def _parked(desk: Desk) -> Iterator[str]:
    pools = [
        ({"worker": str(worker.known.worker_id), "profile": pool.profile}, pool)
        for worker in desk.roster.live()
        for pool in worker.pools
    ]
    yield from _family("crank_sandboxes_parked", [(labels, pool.parked) for labels, pool in pools])
    yield from _family("crank_sandboxes_burnt_total", [(labels, pool.burnt) for labels, pool in pools])


def _since_start(desk: Desk) -> Iterator[str]:
    tally = desk.tally
    ends = [({"reason": reason, "tier": tier}, float(count)) for (reason, tier), count in sorted(tally.ends.items())]
    yield from _family("crank_jobs_ended_total", ends)
    denials = [({"layer": layer, "told_by": by}, float(count)) for (layer, by), count in sorted(tally.denials.items())]
    yield from _family("crank_denials_total", denials)
    taken = [({"result": result}, float(known.count)) for result, known in tally.setup_sec.items()]
    yield from _family("crank_pool_total", taken)
    yield from _histogram("crank_job_memory_peak_bytes", [({}, tally.memory_bytes)])
    setups = [({"pool": result}, known) for result, known in tally.setup_sec.items()]
    yield from _histogram("crank_sandbox_setup_seconds", setups)


def _identities(desk: Desk) -> Iterator[str]:
    tally, standing, now_us = desk.tally, desk.standing, desk.clock.now_us()
    yield from _family("crank_identities_issued_total", [({"kind": kind}, n) for kind, n in sorted(tally.issued.items())])
    results = [({"result": result}, float(count)) for result, count in sorted(tally.renewals.items())]
    yield from _family("crank_identity_renewals_total", results)
    revoked = [({"what": "identity"}, len(standing.bans)), ({"what": "certificate"}, len(standing.revoked))]
    yield from _family("crank_identities_revoked", revoked)
    yield from _family("crank_links_renewed_total", [({}, tally.links_renewed)])
    left = [
        ({"worker": str(worker.known.worker_id)}, max(0.0, (worker.peer.not_after_us - now_us) / 1e6))
        for worker in desk.roster.live()
        if worker.peer is not None
    ]
    yield from _family("crank_worker_identity_seconds", left)


def _family(name: str, samples: Iterable[tuple[Labels, float]]) -> Iterator[str]:
    kind, meaning = FAMILIES[name]
    yield f"# HELP {name} {meaning}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        yield _sample(name, labels, value)


def _histogram(name: str, known: Iterable[tuple[Labels, Histogram]]) -> Iterator[str]:
    yield from _family(name, [])
    for labels, histogram in known:
        for bound, count in histogram.cumulative():
            yield _sample(f"{name}_bucket", {**labels, "le": f"{bound:g}"}, count)
        yield _sample(f"{name}_bucket", {**labels, "le": "+Inf"}, histogram.count)
        yield _sample(f"{name}_sum", labels, histogram.total)
        yield _sample(f"{name}_count", labels, histogram.count)


def _sample(name: str, labels: Labels, value: float) -> str:
    inner = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    number = f"{value:.0f}" if value == int(value) else repr(float(value))
    return f"{name}{{{inner}}} {number}" if inner else f"{name} {number}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
