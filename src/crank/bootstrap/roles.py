"""Roles from files: roles/*.toml in the node's home, each in place of a shipped one of its name, or beside them.

Beside them policy.toml, what no token of this node passes, whatever its role.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crank.adapters.json_schema import JsonSchemaChecker
from crank.config import Settings
from crank.domain.grant import Right
from crank.domain.ids import parse_name
from crank.domain.json import JsonObject
from crank.domain.role import NodeCeiling, Role
from crank.domain.rules.authorization import DETAIL_TYPE, parse_details
from crank.domain.rules.role import OPEN, SHIPPED, parse_ceiling, parse_role
from crank.errors import ConfigurationError, CrankError, Problem

ROLES_MAX = 64
FILE_BYTES_MAX = 64 * 1024


def read_roles(settings: Settings) -> Mapping[str, Role]:
    """Return every role of this node by name. Raises ConfigurationError that lists everything wrong in every file."""
    found, problems = dict(SHIPPED), list[Problem]()
    files = sorted((settings.home / "roles").glob("*.toml"))
    if len(files) > ROLES_MAX:
        problems.append(Problem("roles", f"There are more than {ROLES_MAX} files.", "Remove some."))
    for path in files[:ROLES_MAX]:
        try:
            document = _read(path)
        except (OSError, ValueError, CrankError) as fault:
            problems.append(Problem(path.name, f"It cannot be read: {fault}.", "Correct the file, or remove it."))
            continue
        role, wrong = parse_role(path.stem, document, _right)
        problems += wrong
        if role is not None:
            found[role.name] = role
    if problems:
        raise ConfigurationError(
            "The roles of this node cannot be used.", code="roles_invalid", field=problems[0].field, problems=problems
        )
    return found


def read_ceiling(settings: Settings) -> NodeCeiling:
    """Return what the operator's policy.toml lets pass. Raises ConfigurationError that lists everything wrong in it."""
    path = settings.home / "policy.toml"
    found, problems = OPEN, list[Problem]()
    try:
        read, wrong = parse_ceiling(path.stem, _read(path), _right)
        found, problems = read or OPEN, list(wrong)
    except FileNotFoundError:
        return OPEN
    except (OSError, ValueError, CrankError) as fault:
        problems.append(Problem(path.name, f"It cannot be read: {fault}.", "Correct the file, or remove it."))
    if problems:
        raise ConfigurationError(
            "The policy of this node cannot be used.", code="policy_invalid", field=problems[0].field, problems=problems
        )
    return found


def _read(path: Path) -> dict[str, Any]:
    parse_name(path.stem, field="name")
    octets = path.read_bytes()
    if len(octets) > FILE_BYTES_MAX:
        raise ValueError(f"it is larger than {FILE_BYTES_MAX} bytes")
    return tomllib.loads(octets.decode("utf-8"))


def _right(entry: Any) -> Right:
    source = {"type": DETAIL_TYPE, **entry} if isinstance(entry, dict) else entry
    (right,) = parse_details([source], _problem)
    return right


def _problem(schema: JsonObject) -> str | None:
    found = JsonSchemaChecker().check_schema(schema)
    return None if found is None else found.cause
