"""Whether a node makes Biscuits, whose keys lie in files."""

import pytest

from crank.adapters.clock import SystemClock
from crank.bootstrap.biscuits import open_biscuits
from crank.config import child_environment, load

HSM = {"CRANK_HSM_MODULE": "/m.so", "CRANK_HSM_TOKEN": "crank", "CRANK_HSM_PIN_FILE": "/pin"}
IN_FILES = {"CRANK_BISCUIT_KEYS_IN_FILES": "true"}


@pytest.mark.parametrize(
    ("said", "makes"),
    [({}, True), (IN_FILES, True), (HSM, False), ({**HSM, "CRANK_BISCUIT_KEYS_IN_FILES": "false"}, False),
     ({**HSM, **IN_FILES}, True)],
)  # fmt: skip
def test_beside_an_hsm_no_key_of_biscuits_lies_in_a_file_unless_told(tmp_path, said, makes):
    """Who keeps keys in an HSM gets no others silently: without the setting nothing is made, and nothing written."""
    settings = load({"home": str(tmp_path)}, environment=said)
    assert (open_biscuits(settings, SystemClock()) is not None) == makes
    assert (settings.authority_dir / "biscuit").exists() == makes


def test_the_controller_hears_of_the_setting(tmp_path):
    """It is handed on to the process that signs, as the HSM is."""
    settings = load({"home": str(tmp_path)}, environment={**HSM, **IN_FILES})
    again = load(environment=child_environment(settings))
    assert again.biscuit_keys_in_files
