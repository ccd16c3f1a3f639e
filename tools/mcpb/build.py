"""Builds the one-click bundle for Claude Desktop: `make mcpb` writes dist/crank-<version>.mcpb.

The manifest is made of the project's own facts, so that it cannot say anything else; the same tree gives the same bytes.
"""

import argparse
import json
import tomllib
import zipfile
from pathlib import Path
from typing import Any

from crank.api.mcp.tools import TOOLS

REPO = Path(__file__).resolve().parents[2]
SERVER = "server/main.py"
MANIFEST_VERSION = "0.3"
# The oldest moment that a zip file can tell.
_MOMENT = (1980, 1, 1, 0, 0, 0)


def manifest() -> dict[str, Any]:
    """Return the manifest."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text("utf-8"))["project"]
    return {
        "manifest_version": MANIFEST_VERSION,
        "name": project["name"],
        "display_name": "Crank",
        "version": project["version"],
        "description": project["description"],
        "long_description": "Connects Claude Desktop to the Crank that is installed on this machine. The bundle carries no secret: "
        "Crank finds its own. Folders are shared with `crank mount add`.",
        "author": {"name": "The Crank project"},
        "license": project["license"],
        "server": {
            "type": "python",
            "entry_point": SERVER,
            "mcp_config": {
                "command": "python3",
                "args": ["${__dirname}/" + SERVER],
                "env": {"CRANK_COMMAND": "${user_config.crank_command}", "CRANK_HOME": "${user_config.crank_home}"},
            },
        },
        "tools": [{"name": tool.name, "description": tool.title} for tool in TOOLS.values()],
        "prompts_generated": True,
        "keywords": ["python", "sandbox", "documents"],
        "compatibility": {"platforms": ["linux"], "runtimes": {"python": ">=3.8"}},
        "user_config": {
            "crank_command": {
                "type": "file",
                "title": "The crank command",
                "description": "Only where it is not found by itself: the path of crank, such as .venv/bin/crank in its folder.",
                "required": False,
            },
            "crank_home": {
                "type": "directory",
                "title": "Crank's home",
                "description": "Only where the node's state is not in the usual folder.",
                "required": False,
            },
        },
    }


def build(folder: Path) -> Path:
    """Write the bundle into a folder and return its path."""
    made = manifest()
    path = folder / f"{made['name']}-{made['version']}.mcpb"
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "manifest.json": json.dumps(made, indent=2, ensure_ascii=False).encode() + b"\n",
        SERVER: (REPO / "tools" / "mcpb" / "server.py").read_bytes(),
        "LICENSE": (REPO / "LICENSE").read_bytes(),
    }
    with zipfile.ZipFile(path, "w") as bundle:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, date_time=_MOMENT)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            bundle.writestr(entry, content)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the bundle for Claude Desktop.")
    parser.add_argument("folder", nargs="?", type=Path, default=REPO / "dist")
    print(build(parser.parse_args().folder))
