"""The token endpoint and its like: exchange, introspection, revocation, keys and metadata."""

from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from starlette.responses import Response

from crank.api.address import base_url
from crank.api.challenge import RESOURCE_PATH
from crank.api.documents import answer
from crank.api.holder import Holder, count, proven
from crank.api.oauth import FormRequest, OAuthRoute
from crank.api.peer import Caller, looks_like_token, shown
from crank.controller.desk import Desk
from crank.controller.exchange import Issued, Shown, Wanted, exchange_token
from crank.controller.grants import introspect, revoke_token
from crank.controller.present import token_desk
from crank.domain.chain import looks_like_chain
from crank.domain.grant import Right
from crank.domain.job import Refusal
from crank.domain.json import JsonObject
from crank.domain.rules import doorway, exchange
from crank.domain.rules.authorization import (
    DETAIL_TYPE,
    details_document,
    parse_details_text,
    parse_scope,
    scope_of,
)
from crank.domain.rules.grant import DEPTH_MAX, meet_rights
from crank.domain.rules.role import LIFETIME_SEC_MAX
from crank.domain.rules.token import TOKEN_CHARS_MAX, is_thumbprint
from crank.errors import InvalidRequest, NotAuthenticated

TOKEN_PATH = "/v1/token"  # noqa: S105 - an address
router = APIRouter(route_class=OAuthRoute, include_in_schema=False)


@router.post(TOKEN_PATH)
async def token(request: Request) -> Response:
    """Exchange what is shown for a token (RFC 8693)."""
    assert isinstance(request, FormRequest), "the route's own class"
    desk: Desk = request.app.state.desk
    tokens = token_desk(desk)
    form = await request.fields()
    holder = proven(desk, request, shown=None)
    wanted = _wanted(desk, request, form, holder)
    issued = await exchange_token(desk, wanted, known=lambda: count(desk, holder))
    return answer(_document(issued, tokens.issuer, wanted.form), headers={"pragma": "no-cache"})


def _wanted(desk: Desk, request: FormRequest, form: dict[str, list[str]], holder: Holder) -> Wanted:
    one = {name: values[0] for name, values in form.items()}
    if one.get("grant_type") != exchange.GRANT_TYPE:
        raise InvalidRequest(
            "This node offers the token exchange alone.", code="unsupported_grant_type", field="grant_type",
            fix=f"Send grant_type={exchange.GRANT_TYPE}.",
        )  # fmt: skip
    kind = one.get("requested_token_type", exchange.ACCESS_TOKEN)
    if kind not in (exchange.ACCESS_TOKEN, exchange.JWT, exchange.BISCUIT):
        raise InvalidRequest(
            "This node issues access tokens and Biscuits.", code="invalid_field", field="requested_token_type",
            fix=f"Leave it out, or ask for {exchange.BISCUIT}.",
        )  # fmt: skip
    for place in (*form.get("resource", ()), *form.get("audience", ())):
        _check_target(desk, request, place)
    subject = _shown(one, "subject_token")
    if subject is None:
        raise InvalidRequest("There is no subject_token.", code="missing_field", field="subject_token")
    named = one.get("holder_jkt")
    if named is not None and not is_thumbprint(named):
        raise InvalidRequest("holder_jkt is the SHA-256 thumbprint of a key.", code="invalid_field", field="holder_jkt")
    return Wanted(
        subject=subject,
        actor=_shown(one, "actor_token") or _client(request, subject),
        rights=_rights(desk, one),
        role=one.get("role"),
        proven=holder.jkt,
        peer=holder.peer,
        level=holder.level,
        holder_jkt=named,
        lifetime_sec=_whole(one, "lifetime_sec", 1, LIFETIME_SEC_MAX),
        depth=_whole(one, "depth", 0, DEPTH_MAX),
        form=kind,
        proven_key=holder.key,
    )


def _shown(one: dict[str, str], name: str) -> Shown | None:
    text, kind = one.get(name), one.get(f"{name}_type")
    if text is None and kind is None:
        return None
    if text is None or kind is None:
        missing = name if text is None else f"{name}_type"
        raise InvalidRequest(f"{missing} is missing.", code="missing_field", field=missing)
    if len(text) > TOKEN_CHARS_MAX:
        raise InvalidRequest(f"{name} is too long.", code="invalid_field", field=name)
    return Shown(text, kind)


def _client(request: FormRequest, subject: Shown) -> Shown | None:
    """Return the client that authenticates itself beside the token of another: it will hold what comes of it."""
    scheme, secret = shown(request)
    if not scheme or secret == subject.text:
        return None
    if scheme not in ("bearer", "dpop") or not 0 < len(secret) <= TOKEN_CHARS_MAX:
        raise NotAuthenticated("A client authenticates here by a bearer credential, or not at all.")
    chain = exchange.BISCUIT if looks_like_chain(secret) else exchange.API_KEY
    return Shown(secret, exchange.ACCESS_TOKEN if looks_like_token(secret) else chain)


def _rights(desk: Desk, one: dict[str, str]) -> tuple[Right, ...] | None:
    """Return what is asked for: by details, by scope, or by both, which is what lies within both."""

    def problem(schema: JsonObject) -> str | None:
        found = desk.schemas.check_schema(schema)
        return None if found is None else f"{found.field}: {found.cause}" if found.field else found.cause

    details = one.get("authorization_details")
    scope = one.get("scope")
    asked = None if details is None else parse_details_text(details, problem)
    if scope is None:
        return asked
    named = parse_scope(scope)
    met = named if asked is None else meet_rights(asked, named)
    if isinstance(met, Refusal) or not met:
        raise InvalidRequest(
            "scope and authorization_details have nothing in common.", code="invalid_scope", field="scope"
        )
    return met


def _check_target(desk: Desk, request: Request, place: str) -> None:
    """Let names of this node pass: where a token shall be used elsewhere, this node is the wrong one to ask."""
    if place == token_desk(desk).issuer:
        return
    try:
        parts = urlsplit(place)
    except ValueError:
        parts = urlsplit("")
    named = parts.scheme == "https" and not parts.fragment and doorway.is_known(parts.netloc, request.app.state.names)
    if not named:
        raise InvalidRequest(
            "Tokens of this node are for this node alone.", code="invalid_target", field="resource",
            fix="Leave resource and audience out, or name this node's address.",
        )  # fmt: skip


def _whole(one: dict[str, str], name: str, least: int, most: int) -> int | None:
    text = one.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and least <= int(text) <= most):
        raise InvalidRequest(f"{name} is a whole number from {least} to {most}.", code="invalid_field", field=name)
    return int(text)


def _document(issued: Issued, issuer: str, form: str) -> JsonObject:
    grant = issued.grant
    return {
        "access_token": issued.token,
        "issued_token_type": exchange.BISCUIT if form == exchange.BISCUIT else exchange.ACCESS_TOKEN,
        "token_type": "Bearer" if grant.holder_jkt is None else "DPoP",
        "expires_in": (grant.expires_us - grant.issued_us) // 1_000_000,
        "scope": scope_of(grant.rights),
        "authorization_details": details_document(grant.rights),
        "resource": issuer,
        "grant_id": grant.grant_id,
        "depth_left": grant.depth_left,
    }


# --- what there is to know of a token ----------------------------------------------------------


@router.post("/v1/token/introspect")
async def introspection(request: Request) -> Response:
    """Return what a token is good for (RFC 7662)."""
    caller, form = await _known(request)
    return answer(await introspect(caller.desk, form))


@router.post("/v1/token/revoke")
async def revocation(request: Request) -> Response:
    """End a token and all that came of it (RFC 7009)."""
    caller, form = await _known(request)
    await revoke_token(caller.desk, tenant=caller.tenant, subject=caller.subject, shown=form)
    return answer({})


async def _known(request: Request) -> tuple[Caller, str]:
    assert isinstance(request, FormRequest), "the route's own class"
    caller: Caller = await request.app.state.gate.admit(request)
    token = (await request.fields()).get("token", [""])[0]
    if not 0 < len(token) <= TOKEN_CHARS_MAX:
        raise InvalidRequest("There is no token in the form.", code="missing_field", field="token")
    return caller, token


# --- what there is to know of this node --------------------------------------------------------


@router.get("/v1/jwks")
async def jwks(request: Request) -> Response:
    """Return the keys by which others check tokens of this node: those of capability tokens and no others."""
    keys = token_desk(request.app.state.desk).signer.access_token_keys()
    return answer({"keys": list(keys)}, headers={"cache-control": "public, max-age=300"})


@router.get("/v1/jwks/biscuit")
async def biscuit_keys(request: Request) -> Response:
    """Return the keys by which others check Biscuits of this node, each with the number that stands in a token."""
    chains = token_desk(request.app.state.desk).chains
    keys = [] if chains is None else list(chains.public_keys())
    return answer({"keys": keys}, headers={"cache-control": "public, max-age=300"})


@router.get("/.well-known/oauth-authorization-server")
async def server_metadata(request: Request) -> Response:
    """Return where tokens come from (RFC 8414)."""
    issuer = token_desk(request.app.state.desk).issuer
    return answer(
        {
            "issuer": issuer,
            "token_endpoint": f"{issuer}{TOKEN_PATH}",
            "introspection_endpoint": f"{issuer}{TOKEN_PATH}/introspect",
            "revocation_endpoint": f"{issuer}{TOKEN_PATH}/revoke",
            "jwks_uri": f"{issuer}/v1/jwks",
            "crank_biscuit_jwks_uri": f"{issuer}/v1/jwks/biscuit",
            "grant_types_supported": [exchange.GRANT_TYPE],
            "response_types_supported": [],
            # Whoever exchanges proves what it exchanges; no client is registered here that had a secret.
            "token_endpoint_auth_methods_supported": ["none"],
            # A key or a token in the Authorization header. Left out, the second would mean HTTP Basic.
            "introspection_endpoint_auth_methods_supported": ["Bearer", "DPoP"],
            "revocation_endpoint_auth_methods_supported": ["Bearer", "DPoP"],
            "authorization_details_types_supported": [DETAIL_TYPE],
            "dpop_signing_alg_values_supported": ["ES256"],
            # To the certificate's key, as DPoP does (`jkt`): not to one certificate, as RFC 8705 would (`x5t#S256`).
            "tls_client_certificate_bound_access_tokens": False,
            "service_documentation": f"{issuer}/llms.txt",
        },
        headers=_PUBLIC,
    )


@router.get(RESOURCE_PATH)
async def resource_metadata(request: Request) -> Response:
    """Return where tokens for this node come from (RFC 9728)."""
    return _resource(request, "")


@router.get(f"{RESOURCE_PATH}/mcp")
async def mcp_resource_metadata(request: Request) -> Response:
    """Return the same for MCP, whose clients ask under its own path."""
    return _resource(request, "/mcp")


_PUBLIC = {"cache-control": "no-store", "access-control-allow-origin": "*", "x-content-type-options": "nosniff"}


def _resource(request: Request, path: str) -> Response:
    return answer(
        {
            "resource": f"{base_url(request)}{path}",
            "authorization_servers": [token_desk(request.app.state.desk).issuer],
            "bearer_methods_supported": ["header"],
            "authorization_details_types_supported": [DETAIL_TYPE],
            "dpop_signing_alg_values_supported": ["ES256"],
            "dpop_bound_access_tokens_required": False,
            "tls_client_certificate_bound_access_tokens": False,
            "resource_name": "Crank",
        },
        headers=_PUBLIC,
    )
