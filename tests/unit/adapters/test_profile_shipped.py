"""The capabilities that come with Crank: declarations that hold, and code that belongs to them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from crank.adapters.json_schema import JsonSchemaChecker
from crank.adapters.profile_store import read_shipped
from crank.adapters.profile_store.shipped import script
from crank.domain.capability import capability_document, parse_capability
from crank.errors import ProfileError
from crank.worker.offers import shipped_offers
from documents.faults import CODES
from tests.support.bench import sample_build

PROFILES = Path(__file__).resolve().parents[3] / "profiles"
NAMES = ["document.convert", "document.extract", "document.summarize", "folder.process"]


def test_every_declaration_can_be_offered() -> None:
    """Names, versions, schemas and codes are such as a controller takes, and the codes are those of the code."""
    shipped = read_shipped(PROFILES)
    assert [each.name for each in shipped] == NAMES
    offers = shipped_offers([sample_build(name="python-docs")], shipped)
    checker = JsonSchemaChecker()
    for offer in offers:
        assert parse_capability(capability_document(offer.capability)) == offer.capability
        assert offer.capability.takes_files
        assert not offer.capability.takes_code
        assert set(CODES) < set(offer.capability.error_codes)
        for schema in (offer.capability.input_schema, offer.capability.output_schema):
            assert checker.check_schema(schema) is None
        assert not checker.check(offer.capability.input_schema, {}, field="args")
        assert checker.check(offer.capability.input_schema, {"unknown": 1}, field="args")


def test_nothing_is_offered_without_its_profile() -> None:
    """A node that has not built python-docs does not promise documents."""
    assert shipped_offers([sample_build(name="python-core")], read_shipped(PROFILES)) == ()


def test_marks_change_with_the_code_and_the_profile() -> None:
    """What was kept by other code, or made by another pandoc, is not taken for ours."""
    shipped = read_shipped(PROFILES)[:1]
    build = sample_build(name="python-docs")
    (first,) = shipped_offers([build], shipped)
    (other_code,) = shipped_offers([build], [replace(shipped[0], code_sha256="0" * 64)])
    other_build = replace(build, digest=type(build.digest)("f" * 64))
    (other_profile,) = shipped_offers([other_build], shipped)
    assert len({first.marks, other_code.marks, other_profile.marks}) == 3


def test_the_script_holds_its_whole_package(tmp_path: Path) -> None:
    """Modules import each other from the script itself, and nothing that lies in the job's folder."""
    package = tmp_path / "letters"
    package.mkdir()
    (package / "__init__.py").write_text('"""A package."""\n')
    (package / "entry.py").write_text("from letters.inner import A\n\n\ndef answer(order, progress):\n    return [A, order]\n")
    (package / "inner.py").write_text('A = "ä{}%s"\n')
    found: dict[str, object] = {"args": {"n": 1}, "progress": None}
    import sys

    path, meta = list(sys.path), list(sys.meta_path)
    try:
        exec(compile(script("letters", package), "job.py", "exec"), found)
        assert "/scratch" not in sys.path
    finally:
        sys.path[:], sys.meta_path[:] = path, meta
        for name in [each for each in sys.modules if each.partition(".")[0] == "letters"]:
            del sys.modules[name]
    assert found["result"] == ["ä{}%s", {"n": 1}]


@pytest.mark.parametrize("change", [{"schema": 2}, {"name": "Documents"}, {"extra": 1}, {"effects": "none"}, {"package": "../x"}])
def test_a_declaration_with_a_mistake_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    """The file is named, and nothing of it is offered."""
    shutil.copytree(PROFILES / "capabilities", tmp_path / "capabilities")
    path = tmp_path / "capabilities" / "document.convert.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ProfileError, match=r"document\.convert\.json"):
        read_shipped(tmp_path)
