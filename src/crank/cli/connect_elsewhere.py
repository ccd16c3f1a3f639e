"""`crank connect chatgpt|e2b`: hosts that have no file on this machine. What to do is printed, with this node's facts."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from crank.bootstrap.node import node_info
from crank.cli.exit_codes import ExitCode
from crank.cli.show import print_json
from crank.config import Settings, command_line, home_is_default
from crank.errors import CrankError, Unavailable

_TUNNELS = "https://platform.openai.com/settings/organization/tunnels"
_CONNECTORS = "https://chatgpt.com/#settings/Connectors"
_NAME = "https://crank.example.org"


def chatgpt(settings: Settings, tunnel: bool, as_json: bool) -> int:
    """Print how ChatGPT is connected; with `tunnel`, the ways by which it reaches a node at home."""
    try:
        node = node_info(settings)
        port = node["api"].rpartition(":")[2]
    except CrankError:
        port = str(settings.api_port)
    url = settings.public_url or _NAME
    steps = _ways(settings, port, url) if tunnel else _actions(url)
    if as_json:
        print_json({"host": "chatgpt", "public_url": settings.public_url or None, "steps": steps})
        return ExitCode.OK
    for number, step in enumerate(steps, 1):
        print(f"{number}. {step['title']}")
        for line in step["do"]:
            print(f"   {line}")
        print()
    return ExitCode.OK


def _actions(url: str) -> Sequence[Mapping[str, Any]]:
    return (
        {
            "title": "Let ChatGPT reach this node",
            "do": ["crank connect chatgpt --tunnel shows the ways; with the first one, stop there: it needs no GPT."],
        },
        {"title": "Check it from here", "do": [f"crank doctor --public {url}"]},
        {
            "title": "Make a GPT with Actions",
            "do": [
                "In ChatGPT: Explore GPTs, Create, Configure, Create new action, Import from URL:",
                f"{url}/openapi/actions.json   (if the importer refuses it: {url}/openapi/actions-3.0.json)",
                "Authentication: API Key, Bearer; the key is what this prints, once: crank key mint chatgpt --expires 90d",
                "(--mount NAME for each folder that it may read)",
                "Instructions: Call describeNode first, then runPython; call waitForJob while finished is false.",
            ],
        },
        {
            "title": "Let it send files of the conversation, if you want",
            "do": ["CRANK_ACTIONS_FILE_HOSTS=files.oaiusercontent.com, then start the node anew"],
        },
    )


def _ways(settings: Settings, port: str, url: str) -> Sequence[Mapping[str, Any]]:
    mcp = shlex.join((*command_line(), "mcp"))
    if not home_is_default(settings):
        mcp = f"env CRANK_HOME={shlex.quote(str(settings.home))} {mcp}"
    host = url.removeprefix("https://")
    start = f"crank up --public-url {url}"
    return (
        {
            "title": "OpenAI's Secure MCP Tunnel: no open port, no certificate, no secret of Crank's leaves this machine",
            "do": [
                f"Make a tunnel and a runtime key with Tunnels Read and Use, and get tunnel-client: {_TUNNELS}",
                "export CONTROL_PLANE_API_KEY=…",
                "tunnel-client init --sample sample_mcp_stdio_local --profile crank --tunnel-id tunnel_… "
                f"--mcp-command {shlex.quote(mcp)}",
                "tunnel-client doctor --profile crank --explain",
                "tunnel-client run --profile crank",
                f"While it runs, add a connector that uses this tunnel: {_CONNECTORS}",
            ],
        },
        {
            "title": "Your own name and certificate: for GPT Actions, and for MCP by address",
            "do": [
                f"Get a certificate that browsers trust for {host}, and forward port 443 of that name to port {port} here.",
                f"{start} --tls-cert fullchain.pem --tls-key privkey.pem   (CRANK_BIND=0.0.0.0 where the forward is not on this machine)",
                f"crank doctor --public {url}",
            ],
        },
        {
            "title": "A funnel that ends TLS for you: whoever runs it can read what passes",
            "do": [
                f"tailscale funnel --bg https+insecure://127.0.0.1:{port}   (it prints the name; loopback alone is between it and the node)",
                f"or: cloudflared tunnel --url https://127.0.0.1:{port} --origin-ca-pool {settings.api_ca_file}",
                "crank up --public-url https://NAME-IT-PRINTED, then: crank doctor --public https://NAME-IT-PRINTED",
            ],
        },
    )


def e2b(settings: Settings, _tunnel: bool, as_json: bool) -> int:
    """Print the variables by which programs written for E2B run on this node. Raises NotFound, Unavailable."""
    found = node_info(settings).get("e2b")
    if not isinstance(found, dict):
        raise Unavailable(
            "This node does not serve the E2B protocol.",
            code="e2b_not_served",
            fix="Start it with: crank down; crank up --e2b",
        )
    if as_json:
        print_json({"host": "e2b", "url": found["url"], "env": found["env"]})
    else:
        for name, value in found["env"].items():
            print(f"export {name}={shlex.quote(str(value))}")
    return ExitCode.OK


ELSEWHERE: Mapping[str, Callable[[Settings, bool, bool], int]] = {"chatgpt": chatgpt, "e2b": e2b}
