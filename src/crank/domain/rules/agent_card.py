"""The A2A agent card: what this node is, for agents that look for one (protocol 1.0)."""

from collections.abc import Sequence

from crank.domain.capability import Capability
from crank.domain.json import JsonObject
from crank.domain.wording import plain

SKILLS_MAX = 200
PROTOCOL = "1.0"
# A2A's own task methods are not served, and a binding of one's own is named by a URI: whoever does not know it passes on.
BINDING = "urn:crank:binding:jobs-over-http"
_DESCRIPTION = (
    "Runs the Python that agents write in sandboxes on machines of its owner, and calls functions that its owner "
    "installed. Ask with its credential to learn what it offers."
)


def agent_card(*, base_url: str, version: str, capabilities: Sequence[Capability] | None) -> JsonObject:
    """Return the card.

    base_url      where the node is reached, without a slash at its end
    capabilities  what it offers; None for whoever showed no credential, and then the card names no skill
    """
    # One capability may be offered on several kinds of processor; a skill's id is unique.
    skills = {each.name: _skill(each) for each in capabilities or ()}
    return {
        "name": "Crank",
        "description": _DESCRIPTION,
        "version": version,
        "documentationUrl": f"{base_url}/llms.txt",
        "supportedInterfaces": [{"url": f"{base_url}/v1", "protocolBinding": BINDING, "protocolVersion": PROTOCOL}],
        "capabilities": {"streaming": False, "pushNotifications": False, "extendedAgentCard": False},
        "securitySchemes": {"bearer": {"httpAuthSecurityScheme": {"scheme": "Bearer"}}},
        "securityRequirements": [{"schemes": {"bearer": {"list": []}}}],
        "defaultInputModes": ["application/json"],
        "defaultOutputModes": ["application/json"],
        "skills": list(skills.values())[:SKILLS_MAX],
    }


def _skill(capability: Capability) -> JsonObject:
    kind = "script" if capability.takes_code else "function"
    return {
        "id": capability.name,
        "name": capability.name,
        "description": plain(capability.summary) or capability.name,
        "tags": [kind, str(capability.effects), str(capability.accelerator)],
    }
