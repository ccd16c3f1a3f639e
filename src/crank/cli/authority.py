"""`crank identity show` and `crank identity rotate`: the authority behind every identity of this node."""

from typing import Annotated, Literal

from cyclopts import Parameter

from crank.cli.exit_codes import ExitCode
from crank.cli.reach import ask
from crank.cli.show import harmless, print_json, print_rows, say
from crank.client import AsyncClient
from crank.domain.json import JsonObject

Json = Annotated[bool, Parameter(help="Print JSON.", negative=(), show_default=False)]
_NEXT = {
    "settled": "one root; 'crank identity rotate prepare' publishes a new one beside it",
    "prepared": "a new root is published and does not sign yet; next: 'crank identity rotate activate', or 'abort'",
    "activated": "the new root signs, the old one is still published; next: 'crank identity rotate retire', or 'abort'",
}


def show(*, json: Json = False) -> int:
    """Show the trust domain, the authority's keys with their dates, the bundle's sequence, and a change of root."""

    async def looking(client: AsyncClient) -> JsonObject:
        return await client.identities.authority()

    return _tell(ask(looking), as_json=json)


def rotate(
    step: Annotated[
        Literal["prepare", "activate", "retire", "abort"],
        Parameter(help="prepare makes and publishes a new root, activate lets it sign, retire ends the old one."),
    ],
    /,
    *,
    force: Annotated[
        bool,
        Parameter(
            help="Do it although it cuts off connected workers that do not know the new root, or others who follow "
            "the bundle and have not looked since (activate), or whoever still shows a certificate of the root that "
            "goes (retire, abort).",
            negative=(),
            show_default=False,
        ),
    ] = False,
    json: Json = False,
) -> int:
    """Change the root in three steps, with a way back until the last.

    Both roots are believed from prepare to retire, so nobody is cut off: activate waits until every connected worker
    has said that it believes the new one, and, where others follow the bundle, a quarter of an hour for those; retire
    until the last certificate of the old one has expired.
    """

    async def rotating(client: AsyncClient) -> JsonObject:
        return await client.identities.rotate(step, force=force)

    return _tell(ask(rotating), as_json=json)


def _tell(found: JsonObject, *, as_json: bool) -> int:
    if as_json:
        print_json(found)
        return ExitCode.OK
    print(harmless(f"trust domain  {found['trust_domain']}"))
    print(harmless(f"bundle        sequence {found['sequence']}"))
    print(harmless(f"leaves        live {found['leaf_ttl_sec']:g} s"))
    print(harmless(f"root          {_NEXT[found['phase']]}"))
    if found["drained_at"]:
        print(harmless(f"              the last certificate of {found['other']} expires at {found['drained_at']}"))
    rows = [
        (one["tier"], one["root"] or "-", one["valid_from"], one["expires_at"], one["key"])
        for one in found["certificates"]
    ]
    print_rows(("TIER", "ROOT", "FROM", "UNTIL", "KEY"), rows)
    for path in found["root_keys"]:
        say(f"a root key lies beside the node: {path}; take it offline: crank identity root-key move DIR")
    if found["unaware"]:
        say(f"have not acknowledged the bundle yet: {', '.join(found['unaware'])}")
    return ExitCode.OK
