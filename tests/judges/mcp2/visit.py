"""The 2.x client's visit. The plan says the way in, and `mode`: auto is the newest revision, legacy the one before."""

import contextlib
import ssl
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import anyio
import httpx2
import mcp_visit
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError


def way_in(plan, http=None):
    """Return what the client connects to, and the HTTP client that must be closed."""
    if "command" in plan:
        return StdioServerParameters(command=plan["command"][0], args=plan["command"][1:], env=plan["env"]), None
    http = http or httpx2.AsyncClient(
        verify=ssl.create_default_context(cafile=plan["ca_file"]),
        headers={"Authorization": f"Bearer {plan['token']}"},
        timeout=httpx2.Timeout(30, read=300),
    )
    return streamable_http_client(plan["url"], http_client=http), http


class Host:
    def __init__(self, client):
        self.client = client
        self.version = client.protocol_version

    async def tools(self):
        found = await self.client.list_tools()
        return [tool.model_dump(by_alias=True, exclude_none=True, mode="json") for tool in found.tools]

    async def call(self, name, arguments, progress=None):
        try:
            answer = await self.client.call_tool(name, arguments, progress_callback=progress)
        except MCPError as fault:
            return {"fault": {"code": fault.code, "message": fault.message}}
        return {
            "structured": answer.structured_content,
            "texts": [part.text for part in answer.content if part.type == "text"],
            "kinds": [part.type for part in answer.content],
            "error": answer.is_error,
        }

    async def call_and_cancel(self, name, arguments, after_sec):
        with anyio.move_on_after(after_sec):
            await self.client.call_tool(name, arguments)

    async def resources(self):
        listed, templates = await self.client.list_resources(), await self.client.list_resource_templates()
        return {
            "uris": [str(entry.uri) for entry in listed.resources],
            "templates": [entry.uri_template for entry in templates.resource_templates],
        }

    async def read(self, uri):
        try:
            part = (await self.client.read_resource(uri)).contents[0]
        except MCPError as fault:
            return {"fault": {"code": fault.code, "message": fault.message, "data": fault.data}}
        return {"text": getattr(part, "text", None), "blob": getattr(part, "blob", None)}

    async def prompts(self):
        return [entry.name for entry in (await self.client.list_prompts()).prompts]

    async def prompt(self, name, arguments):
        try:
            return {"text": (await self.client.get_prompt(name, arguments)).messages[0].content.text}
        except MCPError as fault:
            return {"fault": {"code": fault.code, "message": fault.message, "data": fault.data}}


@contextlib.asynccontextmanager
async def connect(plan):
    server, http = way_in(plan)
    async with contextlib.AsyncExitStack() as stack:
        if http is not None:
            await stack.enter_async_context(http)
        client = await stack.enter_async_context(Client(server, mode=plan["mode"]))
        yield Host(client)


if __name__ == "__main__":
    mcp_visit.main(connect)
