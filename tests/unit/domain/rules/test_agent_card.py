"""The A2A card: whole for who may know, empty of skills for who may not."""

from dataclasses import replace

from crank.domain.capability import Accelerator
from crank.domain.rules.agent_card import agent_card
from tests.unit.domain.rules.test_instructions import FUNCTION, SCRIPT


def test_strangers_see_no_skill() -> None:
    """The public card is the same whatever the node has."""
    public = agent_card(base_url="https://n", version="1", capabilities=None)
    assert public["skills"] == []
    assert public == {**agent_card(base_url="https://n", version="1", capabilities=[SCRIPT]), "skills": []}


def test_one_skill_for_one_capability() -> None:
    """A capability on two kinds of processor is one skill."""
    gpu = replace(SCRIPT, accelerator=Accelerator.GPU, gpu_model="H200")
    card = agent_card(base_url="https://n", version="1", capabilities=[SCRIPT, gpu, FUNCTION])
    assert [skill["id"] for skill in card["skills"]] == ["python.run.core", "text.count"]
    assert card["skills"][1]["tags"] == ["function", "external", "cpu"]
