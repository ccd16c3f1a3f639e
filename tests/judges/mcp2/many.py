"""200 clients of the 2.x package at once, every second one of the older era, each on a connection of its own."""

import asyncio
import json
import ssl
import statistics
import sys
import time

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

CLIENTS = 200


async def one(number, plan, verified, together):
    """Be one client; return how long its calls took, and what was wrong."""
    http = httpx2.AsyncClient(
        verify=verified, headers={"Authorization": f"Bearer {plan['token']}"}, timeout=httpx2.Timeout(120)
    )
    await together.wait()
    begun_sec = time.monotonic()
    async with http:
        mode = "auto" if number % 2 else "legacy"
        async with Client(streamable_http_client(plan["url"], http_client=http), mode=mode) as client:
            tools = [tool.name for tool in (await client.list_tools()).tools]
            found = await client.call_tool("find_capability", {"query": "count words"})
            ran = await client.call_tool(
                "run_python", {"code": "result = args * 2", "args": number, "wait_sec": 40}
            )
    right = (
        len(tools) == 7
        and found.structured_content["candidates"][0]["name"] == "text.count"
        and ran.structured_content["result"] == number * 2
    )
    return time.monotonic() - begun_sec, None if right else [number, str(ran.structured_content)[:300]]


async def main():
    plan = json.load(sys.stdin)
    verified = ssl.create_default_context(cafile=plan["ca_file"])
    together = asyncio.Event()
    clients = [asyncio.ensure_future(one(number, plan, verified, together)) for number in range(CLIENTS)]
    await asyncio.sleep(0)
    begun_sec = time.monotonic()
    together.set()
    answers = await asyncio.gather(*clients, return_exceptions=True)
    took_sec = time.monotonic() - begun_sec
    wrong = [repr(answer)[:300] if isinstance(answer, BaseException) else answer[1] for answer in answers]
    wrong = [entry for entry in wrong if entry is not None]
    each = sorted(answer[0] for answer in answers if not isinstance(answer, BaseException))
    print(
        json.dumps(
            {
                "right": CLIENTS - len(wrong),
                "wrong": wrong[:5],
                "took_sec": round(took_sec, 2),
                "own_cpu_sec": round(time.process_time(), 2),
                "p50_sec": round(statistics.median(each), 2) if each else None,
                "worst_sec": round(each[-1], 2) if each else None,
            }
        )
    )


asyncio.run(main())
