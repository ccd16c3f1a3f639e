"""Every section of SPIFFE's standards that obliges a verifier, an issuer or a publisher of ours is named by a test."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
# Sections with a MUST or MUST NOT for us. Those of the Workload API are with its tests, which name its calls.
SECTIONS = {
    "SPIFFE-ID": ("2", "2.1", "2.2", "2.3"),
    "X509-SVID": ("2", "3.1", "3.2", "4.1", "4.2", "4.3", "4.4", "5.1", "5.2", "6.1", "6.2"),
    "JWT-SVID": ("2.1", "2.2", "2.3", "3.1", "3.2", "3.3", "5", "6.1"),
    "Trust Domain and Bundle": ("3", "4", "4.1", "4.1.1", "4.1.2", "4.1.3", "4.2", "4.2.1", "4.2.2", "6"),
    "Federation": ("4.1", "4.2", "5.1", "5.2", "5.2.1.1", "5.2.1.3", "5.2.1.4", "5.2.2.1", "5.2.2.4", "6", "7.3", "7.5.1"),
    "Workload Endpoint": ("3", "4"),
}
_STANDARD = "|".join(re.escape(name) for name in SECTIONS)
# A standard, then sections: "4.1 to 4.4", "2, 3.1 and 5".
_NAMED = re.compile(rf"(?P<name>{_STANDARD})(?P<sections>(?:,? (?:and |to )?\(?[0-9]+(?:\.[0-9]+)*\)?)+)")
_ONE = re.compile(r"(?P<to>to )?(?P<section>[0-9]+(?:\.[0-9]+)*)")


def named() -> Iterator[tuple[str, str]]:
    """Yield each standard and section that a test's sentence names."""
    for file in sorted((TESTS / "security").glob("test_*.py")) + sorted((TESTS / "unit").rglob("test_trust.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                for found in _NAMED.finditer(ast.get_docstring(node) or ""):
                    for section in _sections(found["sections"]):
                        yield found["name"], section


def _sections(text: str) -> Iterator[str]:
    last = ""
    for found in _ONE.finditer(text):
        section = found["section"]
        if found["to"]:
            # "4.1 to 4.4" names all between.
            head, _, first = last.rpartition(".")
            yield from (f"{head}.{number}".lstrip(".") for number in range(int(first), int(section.rpartition(".")[2])))
        yield section
        last = section


@pytest.mark.parametrize("standard", SECTIONS)
def test_each_section_has_its_test(standard):
    """What a standard demands is looked at somewhere, by a test that says so."""
    here = {section for name, section in named() if name == standard}
    assert set(SECTIONS[standard]) - here == set()
