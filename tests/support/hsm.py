"""A software HSM (SoftHSM2) with one token, in a folder of the test; `tools/softhsm.sh` installs it."""

import glob
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PIN, TOKEN = "648219", "crank test"
_PLACES = ("/usr/lib/softhsm", "/usr/lib/*/softhsm", "/usr/local/lib/softhsm")


@dataclass(frozen=True)
class Hsm:
    """Where the module and the PIN are; `conf` is what SoftHSM2 reads to find its tokens."""

    module: Path
    pin_file: Path
    conf: Path

    def settings(self) -> dict[str, str]:
        """Return the environment of a node that keeps its key there."""
        return {
            "SOFTHSM2_CONF": str(self.conf),
            "CRANK_HSM_MODULE": str(self.module),
            "CRANK_HSM_TOKEN": TOKEN,
            "CRANK_HSM_PIN_FILE": str(self.pin_file),
        }


def open_hsm(folder: Path) -> Iterator[Hsm]:
    """Make a token and point this process at it; skips where there is no SoftHSM2."""
    modules = [path for place in _PLACES for path in glob.glob(f"{place}/libsofthsm2.so")]
    if not modules or shutil.which("softhsm2-util") is None:
        pytest.skip("no SoftHSM2 on this machine; tools/softhsm.sh installs it")
    (folder / "tokens").mkdir()
    conf = folder / "softhsm2.conf"
    conf.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
    pin_file = folder / "pin"
    pin_file.touch(mode=0o600)
    pin_file.write_text(f"{PIN}\n")
    before = os.environ.get("SOFTHSM2_CONF")
    os.environ["SOFTHSM2_CONF"] = str(conf)
    words = ["--init-token", "--free", "--label", TOKEN, "--so-pin", "1234567890", "--pin", PIN]
    subprocess.run(["softhsm2-util", *words], check=True, capture_output=True, timeout=60)
    try:
        yield Hsm(Path(modules[0]), pin_file, conf)
    finally:
        import pkcs11

        pkcs11.unload(modules[0])
        if before is None:
            del os.environ["SOFTHSM2_CONF"]
        else:
            os.environ["SOFTHSM2_CONF"] = before
