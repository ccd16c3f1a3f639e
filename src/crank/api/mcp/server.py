"""The official SDK's server with this node's tools, resources and prompts; the one module that needs the SDK.

It is imported when the first request comes or soon after the node is ready, in a thread: see `door`. The SDK speaks
both eras of the protocol; what a handler returns here is the same for both.
"""

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias

import structlog
from mcp import types
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from crank.api.mcp import prompts, resources
from crank.api.mcp.advice import for_tools
from crank.api.mcp.calls import Call, Told
from crank.api.mcp.errands import Errands
from crank.api.mcp.seats import SESSION_IDLE_SEC, SESSIONS_OF_SDK_MAX
from crank.api.mcp.shapes import schema_of
from crank.api.mcp.tools import TOOLS, Tool
from crank.api.peer import Caller
from crank.api.problem import PROBLEMS_MAX, finding
from crank.domain.json import JsonObject, dumps
from crank.domain.quantity import BODY_BYTES_MAX, WAIT_SEC_MAX
from crank.errors import CrankError, InvalidRequest, Unavailable

# What a client may keep of a list before it asks again; a node changes them only when it is renewed.
_LISTS_MS = 60_000
_ABOUT = (
    "Crank runs Python on machines that the user owns, walled in and without a network. Write one script that does the "
    "whole work and call run_python; name the user's folders as mounts instead of reading files one by one. Files that "
    "a script leaves in /out are kept with their hashes. Nothing blocks for long: when an answer has ended=false, call "
    "job_wait."
)
_log = structlog.get_logger(__name__)
Asked: TypeAlias = ServerRequestContext[Any, Any]


def build_server(errands: Errands, *, version: str) -> Server[Any]:
    """Return the server, not yet behind any transport. Each call is served on its caller's own desk."""
    rooms = _Rooms(errands, version)
    return Server(
        "crank",
        version=version,
        title="Crank",
        instructions=_ABOUT,
        cache_hints={
            name: CacheHint(ttl_ms=_LISTS_MS)
            for name in ("tools/list", "resources/list", "resources/templates/list", "prompts/list", "server/discover")
        },
        get_tool_input_schema=lambda name: schema_of(TOOLS[name].takes) if name in TOOLS else None,
        on_list_tools=rooms.list_tools,
        on_call_tool=rooms.call_tool,
        on_list_resources=rooms.list_resources,
        on_list_resource_templates=rooms.list_templates,
        on_read_resource=rooms.read_resource,
        on_list_prompts=rooms.list_prompts,
        on_get_prompt=rooms.get_prompt,
    )


def build_manager(server: Server[Any]) -> StreamableHTTPSessionManager:
    """Return what serves it over HTTP. Who may come in by which name was decided by the door."""
    return StreamableHTTPSessionManager(
        server,
        security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        max_request_body_size=BODY_BYTES_MAX,
        max_sessions=SESSIONS_OF_SDK_MAX,
        session_idle_timeout=SESSION_IDLE_SEC,
    )


def user_of(caller: Caller) -> AuthenticatedUser:
    """Return the caller as the SDK knows it: a session of the older era belongs to who opened it."""
    # The credential itself stays with the door.
    return AuthenticatedUser(AccessToken(token="", client_id=caller.credential.credential_id, scopes=[], subject=caller.subject))


def described(tool: Tool) -> types.Tool:
    """Return a tool as it is listed."""
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=schema_of(tool.takes),
        output_schema=schema_of(tool.gives),
        annotations=types.ToolAnnotations(
            title=tool.title,
            read_only_hint=tool.reads,
            destructive_hint=tool.destroys,
            idempotent_hint=tool.reads or tool.repeats,
            open_world_hint=False,
        ),
    )


class _Rooms:
    """The handlers. Each turns a fault into what its kind of answer has for one, and tells nothing of a defect."""

    def __init__(self, errands: Errands, version: str) -> None:
        self._version = version
        self._errands = errands
        self._tools = [described(tool) for tool in TOOLS.values()]

    async def list_tools(self, _asked: Asked, _page: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=self._tools)

    async def call_tool(self, asked: Asked, wanted: types.CallToolRequestParams) -> types.CallToolResult:
        tool = TOOLS.get(wanted.name)
        if tool is None:
            known = ", ".join(TOOLS)
            raise MCPError(types.INVALID_PARAMS, f"There is no tool {wanted.name[:80]!r}.", {"fix": f"Known: {known}."})
        call = self._call(asked)
        self._errands.calls += 1
        try:
            arguments = _checked(tool, wanted.arguments or {})
            async with asyncio.timeout(WAIT_SEC_MAX):
                return _answered(await tool.act(call, arguments))
        except TimeoutError:
            slow = Unavailable(f"This call took longer than {WAIT_SEC_MAX} s.", code="call_too_slow")
            return _refused(slow)
        except CrankError as fault:
            if fault.detail:
                _log.warning("tool_refused", tool=tool.name, code=fault.error_code, detail=fault.detail)
            return _refused(fault)
        except Exception as defect:  # noqa: BLE001 - the border: a defect is logged whole and told without a word of it
            _log.error("defect", tool=tool.name, exc_info=defect)
            return _refused(_hidden())
        finally:
            self._errands.calls -= 1

    async def list_resources(self, _asked: Asked, _page: Any) -> types.ListResourcesResult:
        return types.ListResourcesResult(
            resources=[types.Resource(**entry) for entry in resources.listed()]
        )

    async def list_templates(self, _asked: Asked, _page: Any) -> types.ListResourceTemplatesResult:
        return types.ListResourceTemplatesResult(
            resource_templates=[types.ResourceTemplate(**entry) for entry in resources.TEMPLATES]
        )

    async def read_resource(self, asked: Asked, wanted: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        uri = str(wanted.uri)
        caller = _caller(asked)
        found = await self._guarded(lambda: resources.read(caller.desk, caller, uri, version=self._version), uri=uri)
        contents = (
            types.TextResourceContents(uri=uri, mime_type=found.media_type, text=found.text)
            if found.text is not None
            else types.BlobResourceContents(uri=uri, mime_type=found.media_type, blob=found.base64 or "")
        )
        return types.ReadResourceResult(contents=[contents])

    async def list_prompts(self, _asked: Asked, _page: Any) -> types.ListPromptsResult:
        return types.ListPromptsResult(prompts=[types.Prompt(**entry) for entry in prompts.LISTED])

    async def get_prompt(self, asked: Asked, wanted: types.GetPromptRequestParams) -> types.GetPromptResult:
        caller = _caller(asked)
        given = wanted.arguments or {}
        text = await self._guarded(
            lambda: prompts.get(caller.desk, caller, wanted.name, given, version=self._version)
        )
        message = types.PromptMessage(role="user", content=types.TextContent(type="text", text=text))
        return types.GetPromptResult(messages=[message])

    def _call(self, asked: Asked) -> Call:
        async def tell(elapsed_sec: float, message: str) -> None:
            await asked.session.report_progress(round(elapsed_sec, 3), None, message)

        caller = _caller(asked)
        return Call(caller, tell, self._errands, caller.desk.clock.monotonic_sec())

    async def _guarded(self, look: Callable[[], Any], **facts: str) -> Any:
        """Return what a look-up gives, or raise the protocol's own error. The SDK would tell a defect in its words."""
        try:
            async with asyncio.timeout(WAIT_SEC_MAX):
                return await look()
        except CrankError as fault:
            raise MCPError(types.INVALID_PARAMS, fault.message, {**_error(fault), **facts}) from fault
        except Exception as defect:  # noqa: BLE001 - as above
            _log.error("defect", exc_info=defect)
            raise MCPError(types.INTERNAL_ERROR, _hidden().message) from None


def _caller(asked: Asked) -> Caller:
    assert asked.request is not None, "every request comes over HTTP"
    caller: Caller = asked.request.state.caller
    return caller


def _checked(tool: Tool, arguments: JsonObject) -> Any:
    try:
        return tool.takes.model_validate(arguments)
    except ValidationError as fault:
        entries = fault.errors(include_url=False, include_input=False)[:PROBLEMS_MAX]
        found = [finding({**entry, "loc": ("arguments", *entry["loc"])}, tool.takes) for entry in entries]
        code, first = found[0]
        raise InvalidRequest(
            f"{first.field or 'The arguments'}: {first.cause}",
            code=code,
            field=first.field,
            fix=first.fix,
            problems=[problem for _, problem in found],
        ) from fault


def _answered(told: Told) -> types.CallToolResult:
    # The same as text: hosts of the older era show a model nothing else.
    content: list[types.ContentBlock] = [types.TextContent(type="text", text=dumps(told.document))]
    content += [types.ImageContent(type="image", data=octets, mime_type=kind) for kind, octets in told.images]
    content += [
        types.ResourceLink(
            type="resource_link",
            name=entry["path"],
            uri=resources.file_uri(told.document["job_id"], entry["path"]),
            mime_type=entry["media_type"],
            size=entry["size_bytes"],
        )
        for entry in told.document.get("artifacts", ())
    ]
    return types.CallToolResult(content=content, structured_content=told.document)


def _refused(fault: CrankError) -> types.CallToolResult:
    text = dumps({"error": _error(fault)})
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)], is_error=True)


def _error(fault: CrankError) -> JsonObject:
    return {
        "code": fault.error_code,
        "message": fault.message,
        "field": fault.field,
        "fix": for_tools(fault.fix),
        "problems": [
            {"field": entry.field, "cause": entry.cause, "fix": for_tools(entry.fix)}
            for entry in fault.problems[:PROBLEMS_MAX]
        ],
    }


def _hidden() -> CrankError:
    return CrankError("Something went wrong inside the node; its log says what.")
