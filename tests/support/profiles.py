"""Profiles for tests: the project's own, built once and shared, and tiny ones from wheels made on the spot."""

import base64
import hashlib
import os
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

from crank.adapters.clock import SystemClock
from crank.adapters.profile_store import ProfileStore

REPO = Path(__file__).resolve().parents[2]
PROFILES = REPO / "profiles"
_PASSED_ON = ("PATH", "HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")


def pip_environment() -> dict[str, str]:
    """Return what pip may know on this machine."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name.startswith("PIP_") or name.lower() in _PROXIES
    }


def project_store(builds: Path) -> ProfileStore:
    """Return a store over the project's own profiles."""
    return ProfileStore(PROFILES, builds, pip_environment(), Path(sys.executable), SystemClock())


class TinyProfiles:
    """A folder of small profiles whose wheels are made here, so that pip needs no network."""

    def __init__(self, place: Path) -> None:
        self.source = place / "profiles"
        self.wheels = place / "wheels"
        self.builds = place / "builds"
        for folder in (self.source, self.wheels):
            folder.mkdir(parents=True)

    def store(self, **pip_extra: str) -> ProfileStore:
        """Return a store whose pip looks only into the folder of wheels."""
        environment = {"PATH": os.defpath, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels), **pip_extra}
        environment["PIP_CONFIG_FILE"] = os.devnull
        return ProfileStore(self.source, self.builds, environment, Path(sys.executable), SystemClock())

    def wheel(self, name: str, version: str, files: Mapping[str, bytes]) -> str:
        """Make a wheel (PEP 427) and return its line for a lock."""
        folder = f"{name}-{version}.dist-info"
        content = {
            **files,
            f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
            f"{folder}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(f"{path},sha256={_digest(body)},{len(body)}\n" for path, body in content.items())
        content[f"{folder}/RECORD"] = (record + f"{folder}/RECORD,,\n").encode()
        path = self.wheels / f"{name}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for inside, body in content.items():
                entry = zipfile.ZipInfo(inside)
                entry.external_attr = 0o100755 << 16
                archive.writestr(entry, body)
        public = version.partition("+")[0]
        return f"{name}=={public} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"

    def profile(self, name: str, lock: str, *, accelerator: str = "cpu", **lists: list[str]) -> None:
        """Write a profile and its lock."""
        (self.source / f"{name}.lock").write_text(lock, encoding="utf-8")
        lines = [
            "schema = 1",
            f'name = "{name}"',
            'capability = "python.run.tiny"',
            'version = "1.0.0"',
            'python = "3.11"',
            'summary = "For tests."',
            *(f"{key} = {values!r}" for key, values in lists.items()),
            f'locks.{accelerator} = "{name}.lock"',
        ]
        (self.source / f"{name}.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _digest(body: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode("ascii")
