"""Capabilities that come with Crank: code of its own that runs in a profile, behind that profile's walls."""

from dataclasses import dataclass

from crank.domain.capability import Effects
from crank.domain.json import JsonObject


@dataclass(frozen=True, slots=True)
class ShippedCapability:
    """A declaration with its code, as it lies beside the profiles.

    profile      the profile whose environment runs it
    code         one script that holds everything; it finds its order in `args` and leaves the answer of a function
    code_sha256  what tells this code from every other
    """

    name: str
    version: str
    summary: str
    profile: str
    effects: Effects
    error_codes: tuple[str, ...]
    input_schema: JsonObject
    output_schema: JsonObject
    code: str
    code_sha256: str
