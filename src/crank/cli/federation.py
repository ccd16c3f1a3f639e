"""`crank federation …`: other trust domains whose identities can be checked here, each by its own bundle."""

import json as json_text
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from crank.cli.exit_codes import ExitCode
from crank.cli.key import duration_sec
from crank.cli.reach import ask
from crank.cli.show import print_json, print_rows, say
from crank.client import AsyncClient, FederatedDomain
from crank.domain.json import JsonObject
from crank.errors import InvalidRequest

FILE_BYTES_MAX = 1024 * 1024
Json = Annotated[bool, Parameter(help="Print JSON.", negative=(), show_default=False)]
Domain = Annotated[str, Parameter(help="The trust domain's name.")]


@Parameter(name="*")
@dataclass(frozen=True)
class How:
    """How a publisher is asked, and how it proves itself."""

    profile: Annotated[
        Literal["https_web", "https_spiffe"] | None,
        Parameter(help="How the publisher proves itself; https_spiffe where --endpoint-id is given, else https_web."),
    ] = None
    endpoint_id: Annotated[str | None, Parameter(help="The publisher's SPIFFE ID.")] = None
    bundle: Annotated[Path | None, Parameter(help="A file with its bundle, brought by hand, to begin with.")] = None
    ca: Annotated[Path | None, Parameter(help="A file with the authority of the publisher's host (PEM).")] = None
    private: Annotated[
        bool, Parameter(help="Its address may be this machine or in a private network.", negative=(), show_default=False)
    ] = False
    stale_after: Annotated[str, Parameter(help="How long a bundle is believed that cannot be fetched again.")] = "1d"


def add(
    trust_domain: Domain,
    url: Annotated[str, Parameter(help="Where its bundle is published: https://host:port/trust-bundle.")],
    /,
    *,
    how: How = How(),
    json: Json = False,
) -> int:
    """Federate with a trust domain: fetch its bundle now, keep it, and look for newer ones from then on."""
    more: dict[str, Any] = {
        "profile": how.profile or ("https_spiffe" if how.endpoint_id else "https_web"),
        "endpoint_id": how.endpoint_id,
        "private": how.private,
        "stale_after_sec": int(duration_sec(how.stale_after)),
        "ca_pem": None if how.ca is None else _read(how.ca, "ca"),
        "bundle": None if how.bundle is None else _bundle(how.bundle),
    }
    wanted = {name: value for name, value in more.items() if value is not None}

    async def adding(client: AsyncClient) -> FederatedDomain:
        return await client.federation.add(trust_domain, url, **wanted)

    added = ask(adding)
    if json:
        print_json(added.document)
    else:
        say(f"federated with {added.trust_domain} (bundle {added.sequence}, {added.document['x509_authorities']} authorities)")
    return ExitCode.OK


def _read(path: Path, field: str) -> str:
    with path.open("rb") as source:
        content = source.read(FILE_BYTES_MAX + 1)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if not text or len(content) > FILE_BYTES_MAX:
        raise InvalidRequest(f"{path} is no text of at most {FILE_BYTES_MAX} bytes.", code="usage", field=field)
    return text


def _bundle(path: Path) -> Any:
    try:
        return json_text.loads(_read(path, "bundle"))
    except ValueError as fault:
        raise InvalidRequest(f"{path} holds no bundle: it is not JSON.", code="usage", field="bundle") from fault


def list_domains(*, json: Json = False) -> int:
    """List the trust domains that this node is federated with, and whether their bundles are believed now."""

    async def listing(client: AsyncClient) -> Sequence[FederatedDomain]:
        return await client.federation.list()

    found = ask(listing)
    if json:
        print_json({"federation": [each.document for each in found]})
    else:
        rows = [
            (each.trust_domain, each.profile, "yes" if each.believed else "no", each.sequence, each.document["fetched_at"], each.failure)
            for each in found
        ]  # fmt: skip
        print_rows(("DOMAIN", "PROFILE", "BELIEVED", "SEQUENCE", "FETCHED", "FAILURE"), rows)
    return ExitCode.OK


def show(
    trust_domain: Annotated[str | None, Parameter(help="The trust domain's name; this node's own bundle otherwise.")] = None,
    /,
    *,
    bundle: Annotated[bool, Parameter(help="Print the bundle alone.", negative=(), show_default=False)] = False,
) -> int:
    """Show one federated trust domain as JSON, with its last good bundle; or the bundle to hand to others."""

    async def finding(client: AsyncClient) -> JsonObject:
        if trust_domain is None:
            return await client.federation.own_bundle()
        document = (await client.federation.find(trust_domain)).document
        return document["bundle"] if bundle else document

    print_json(ask(finding))
    return ExitCode.OK


def refresh(trust_domain: Domain, /, *, json: Json = False) -> int:
    """Look at the publisher now; exits with 6 when that failed and the last good bundle stays."""

    async def refreshing(client: AsyncClient) -> FederatedDomain:
        return await client.federation.refresh(trust_domain)

    found = ask(refreshing)
    if json:
        print_json(found.document)
    else:
        say(found.failure or f"{found.trust_domain} shows bundle {found.sequence}")
    return ExitCode.OK if found.failure is None else ExitCode.UNAVAILABLE


def remove(trust_domain: Domain, /, *, json: Json = False) -> int:
    """End a federation. From now on nobody of that trust domain is believed here."""

    async def removing(client: AsyncClient) -> FederatedDomain:
        return await client.federation.remove(trust_domain)

    removed = ask(removing)
    if json:
        print_json(removed.document)
    else:
        say(f"no longer federated with {removed.trust_domain}")
    return ExitCode.OK
