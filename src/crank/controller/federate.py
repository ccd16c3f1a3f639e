"""Federation: the owner names other trust domains; their bundles are fetched, kept apart, and dropped when revoked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog

from crank.controller.access import authorise
from crank.controller.bundles import Trust
from crank.controller.desk import Desk
from crank.domain.federation import STALE_AFTER_SEC, EndpointProfile, Federated
from crank.domain.identity import SpiffeId, parse_spiffe_id
from crank.domain.ids import LOCAL_TENANT, TenantId
from crank.domain.rules import access
from crank.domain.rules.federation import FEDERATED_DOMAINS_MAX, believed_until_us, check_wanted, may_follow
from crank.domain.trust import TrustBundle
from crank.errors import Conflict, CrankError, InvalidRequest, NotFound, TooLarge, Unavailable
from crank.ports import Transaction

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class FederationWanted:
    """What is asked of a new federation; the fields mean what they mean in `Federated`.

    bundle  the text of the domain's bundle, handed over by hand; needed where the publisher is of that same domain
    """

    trust_domain: str
    url: str
    profile: EndpointProfile
    endpoint_id: str | None = None
    ca_pem: str | None = None
    private: bool = False
    stale_after_sec: int = STALE_AFTER_SEC
    bundle: str | None = None


async def add(desk: Desk, *, tenant: TenantId, subject: str, wanted: FederationWanted) -> Federated:
    """Federate with a trust domain, once its publisher has shown a good bundle; else nothing is left behind.

    Raises NotAllowed, InvalidRequest, Conflict (`federation_exists`), TooLarge, and what a fetch raises.
    """
    await authorise(desk, access.Action.CHANGE_FEDERATION)
    trust, now_us = trust_of(desk), desk.clock.now_us()
    made = Federated(
        trust_domain=wanted.trust_domain,
        url=wanted.url,
        profile=wanted.profile,
        endpoint_id=wanted.endpoint_id,
        ca_pem=wanted.ca_pem,
        private=wanted.private,
        stale_after_sec=wanted.stale_after_sec,
        added_us=now_us,
        bundle="",
        fetched_us=now_us,
        tried_us=now_us,
    )
    check_wanted(made, own=trust.authority.trust_domain)
    if await desk.store.read(lambda tx: tx.federation.find(made.trust_domain)) is not None:
        # Asked before anybody else is.
        raise Conflict(
            f"This node is federated with {made.trust_domain} already.",
            code="federation_exists",
            field="trust_domain",
            fix="Remove it first: what a federation is pinned to never changes.",
        )
    first = None if wanted.bundle is None else trust.bundle_format.read(wanted.trust_domain, wanted.bundle.encode())
    bundle = await _fetch(trust, made, first)
    made = replace(made, bundle=trust.bundle_format.write(bundle).decode())

    def commit(tx: Transaction) -> None:
        if len(tx.federation.all()) >= FEDERATED_DOMAINS_MAX:
            raise TooLarge(f"A node is federated with at most {FEDERATED_DOMAINS_MAX} domains.", code="too_many_federations")
        tx.federation.insert(made)
        facts = {"trust_domain": made.trust_domain, "url": made.url, "profile": str(made.profile), "sequence": bundle.sequence}
        tx.records.append(desk.record("federation.added", tenant=tenant, subject=subject, job_id=None, facts=facts))

    await desk.store.transact(commit)
    trust.bundles.put(bundle, believed_until_us(made))
    return made


async def list_federation(desk: Desk) -> Sequence[Federated]:
    """Return every domain that this node is federated with, by name. Raises NotAllowed."""
    await authorise(desk, access.Action.READ_FEDERATION)
    return await desk.store.read(lambda tx: list(tx.federation.all()))


async def find(desk: Desk, *, trust_domain: str) -> Federated:
    """Return one domain. Raises NotAllowed, NotFound."""
    await authorise(desk, access.Action.READ_FEDERATION)
    return await _find(desk, trust_domain)


async def remove(desk: Desk, *, tenant: TenantId, subject: str, trust_domain: str) -> Federated:
    """End a federation: from now on nobody of that domain is believed. Raises NotAllowed, NotFound."""
    await authorise(desk, access.Action.CHANGE_FEDERATION)

    def commit(tx: Transaction) -> Federated:
        found = tx.federation.find(trust_domain)
        if found is None:
            raise _none(trust_domain)
        tx.federation.remove(trust_domain)
        facts = {"trust_domain": trust_domain}
        tx.records.append(desk.record("federation.removed", tenant=tenant, subject=subject, job_id=None, facts=facts))
        return found

    removed = await desk.store.transact(commit)
    trust_of(desk).bundles.drop(trust_domain)
    return removed


async def refresh(desk: Desk, *, trust_domain: str) -> Federated:
    """Look at a publisher now, and return what came of it; a failure is told in the result. Raises NotAllowed, NotFound."""
    await authorise(desk, access.Action.CHANGE_FEDERATION)
    return await poll(desk, await _find(desk, trust_domain))


async def recall(desk: Desk) -> None:
    """Believe what the store holds, after a start; a bundle that cannot be read any more is not believed."""
    trust = trust_of(desk)
    for federated in await desk.store.read(lambda tx: list(tx.federation.all())):
        bundle = kept_bundle(trust, federated)
        if bundle is not None:
            trust.bundles.put(bundle, believed_until_us(federated))


def kept_bundle(trust: Trust, federated: Federated) -> TrustBundle | None:
    """Return the last good bundle of a domain, or None where the store holds what cannot be read any more."""
    try:
        return trust.bundle_format.read(federated.trust_domain, federated.bundle.encode())
    except CrankError as fault:
        _log.error("federated_bundle_unreadable", trust_domain=federated.trust_domain, cause=fault.message)
        return None


async def poll(desk: Desk, federated: Federated) -> Federated:
    """Look at a publisher and keep what it shows; when that fails, keep the last good bundle and the reason.

    Raises NotFound when the federation was ended meanwhile.
    """
    trust = trust_of(desk)
    failure: str | None = None
    bundle: TrustBundle | None = None
    try:
        bundle = await _fetch(trust, federated, kept_bundle(trust, federated))
    except CrankError as fault:
        failure = f"{fault.error_code}: {fault.message}"
    kept, taken = await desk.store.transact(lambda tx: _keep(desk, tx, federated, bundle, failure))
    if bundle is not None and taken:
        trust.bundles.put(bundle, believed_until_us(kept))
    elif failure is not None and failure != federated.failure:
        _log.warning("federation_poll_failed", trust_domain=kept.trust_domain, cause=failure)
    return kept


def _keep(
    desk: Desk, tx: Transaction, asked: Federated, bundle: TrustBundle | None, failure: str | None
) -> tuple[Federated, bool]:
    """Keep what a look ended with; tell whether its bundle was taken: another look may have brought a newer one meanwhile."""
    trust, now_us = trust_of(desk), desk.clock.now_us()
    before = tx.federation.find(asked.trust_domain)
    if before is None or before.added_us != asked.added_us:
        raise _none(asked.trust_domain)
    newest = kept_bundle(trust, before)
    taken = bundle is not None and (newest is None or may_follow(newest, bundle) is None)
    kept = replace(before, tried_us=now_us, failure=failure)
    if bundle is not None and taken:
        kept = replace(kept, bundle=trust.bundle_format.write(bundle).decode(), fetched_us=now_us)
    tx.federation.update(kept)
    if bundle is not None and before.bundle != kept.bundle:
        facts = {"trust_domain": kept.trust_domain, "sequence": bundle.sequence, "keys": len(bundle.x509_authorities)}
        node = desk.policy.controller_id
        tx.records.append(
            desk.record("federation.bundle_changed", tenant=LOCAL_TENANT, subject=node, job_id=None, facts=facts)
        )
    return kept, taken


async def _fetch(trust: Trust, federated: Federated, current: TrustBundle | None) -> TrustBundle:
    """Return the publisher's bundle if it may follow the current one. Raises what a fetch raises, and Conflict."""
    raw = await trust.publishers.fetch(
        federated.url,
        private=federated.private,
        ca_pem=federated.ca_pem,
        expected=_expected(trust, federated, current),
    )
    fetched = trust.bundle_format.read(federated.trust_domain, raw)
    refused = None if current is None else may_follow(current, fetched)
    if refused is not None:
        raise Conflict(refused.message, code=refused.code, fix=refused.fix)
    return fetched


def _expected(trust: Trust, federated: Federated, current: TrustBundle | None) -> tuple[SpiffeId, TrustBundle] | None:
    """Return whom the publisher must be, and by which bundle: its own domain's newest one (Federation 5.2.2.4)."""
    if federated.profile is not EndpointProfile.SPIFFE:
        return None
    publisher = parse_spiffe_id(federated.endpoint_id or "")
    if publisher.trust_domain == federated.trust_domain:
        if current is None:
            raise InvalidRequest(
                f"Nothing is known of {federated.trust_domain} by which its publisher could be proven.",
                code="bootstrap_bundle_needed",
                field="bundle",
                fix="Hand over its bundle once, brought by a way that you trust: --bundle FILE.",
            )
        return publisher, current
    bundle = trust.bundles.find(publisher.trust_domain)
    if bundle is None:
        raise Unavailable(
            f"The publisher is of {publisher.trust_domain}, whose bundle is not known here.",
            code="bundle_fetch_failed",
            fix="Federate with that domain first.",
        )
    return publisher, bundle


async def _find(desk: Desk, trust_domain: str) -> Federated:
    found = await desk.store.read(lambda tx: tx.federation.find(trust_domain))
    if found is None:
        raise _none(trust_domain)
    return found


def _none(trust_domain: str) -> NotFound:
    return NotFound(
        f"This node is not federated with {trust_domain[:80]!r}.",
        code="federation_not_found",
        field="trust_domain",
        fix="'crank federation list' shows with whom it is.",
    )


def trust_of(desk: Desk) -> Trust:
    """Return what a node with a trust domain has. Raises Unavailable where there is none."""
    if desk.trust is None:
        raise Unavailable("This node serves no trust domain.", code="no_trust_domain")
    return desk.trust
