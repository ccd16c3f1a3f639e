"""The 1.x client's visit, by HTTP or by stdio."""

import asyncio
import contextlib
import ssl
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import httpx
import mcp_visit
from mcp import ClientSession, McpError, StdioServerParameters, types
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client


class Host:
    def __init__(self, session, version):
        self.session = session
        self.version = version

    async def tools(self):
        found = await self.session.list_tools()
        return [tool.model_dump(by_alias=True, exclude_none=True, mode="json") for tool in found.tools]

    async def call(self, name, arguments, progress=None):
        try:
            answer = await self.session.call_tool(name, arguments, progress_callback=progress)
        except McpError as fault:
            return {"fault": {"code": fault.error.code, "message": fault.error.message}}
        return {
            "structured": answer.structuredContent,
            "texts": [part.text for part in answer.content if part.type == "text"],
            "kinds": [part.type for part in answer.content],
            "error": answer.isError,
        }

    async def call_and_cancel(self, name, arguments, after_sec):
        """Say that the request is cancelled, as hosts of this generation do, and stop listening."""
        request_id = self.session._request_id
        calling = asyncio.ensure_future(self.session.call_tool(name, arguments))
        await asyncio.wait({calling}, timeout=after_sec)
        params = types.CancelledNotificationParams(requestId=request_id, reason="enough")
        await self.session.send_notification(types.ClientNotification(types.CancelledNotification(params=params)))
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)

    async def resources(self):
        listed, templates = await self.session.list_resources(), await self.session.list_resource_templates()
        return {
            "uris": [str(entry.uri) for entry in listed.resources],
            "templates": [entry.uriTemplate for entry in templates.resourceTemplates],
        }

    async def read(self, uri):
        try:
            part = (await self.session.read_resource(uri)).contents[0]
        except McpError as fault:
            return {"fault": {"code": fault.error.code, "message": fault.error.message, "data": fault.error.data}}
        return {"text": getattr(part, "text", None), "blob": getattr(part, "blob", None)}

    async def prompts(self):
        return [entry.name for entry in (await self.session.list_prompts()).prompts]

    async def prompt(self, name, arguments):
        try:
            return {"text": (await self.session.get_prompt(name, arguments)).messages[0].content.text}
        except McpError as fault:
            return {"fault": {"code": fault.error.code, "message": fault.error.message, "data": fault.error.data}}


@contextlib.asynccontextmanager
async def connect(plan):
    async with contextlib.AsyncExitStack() as stack:
        if "command" in plan:
            server = StdioServerParameters(command=plan["command"][0], args=plan["command"][1:], env=plan["env"])
            streams = await stack.enter_async_context(stdio_client(server))
        else:
            http = httpx.AsyncClient(
                verify=ssl.create_default_context(cafile=plan["ca_file"]),
                headers={"Authorization": f"Bearer {plan['token']}"},
                timeout=httpx.Timeout(30, read=300),
            )
            await stack.enter_async_context(http)
            streams = await stack.enter_async_context(streamable_http_client(plan["url"], http_client=http))
        session = await stack.enter_async_context(ClientSession(streams[0], streams[1]))
        opened = await session.initialize()
        yield Host(session, opened.protocolVersion)


if __name__ == "__main__":
    mcp_visit.main(connect)
