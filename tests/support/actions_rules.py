"""The published rules for GPT Actions, as a linter: what ChatGPT's importer and its caller demand of a document.

Sources: OpenAI's pages on actions in production, on sending and returning files, and on getting started; OpenAPI
3.0.3 and 3.1 for the form.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from jsonschema import Draft202012Validator, SchemaError

OPERATIONS_MAX = 30
ENDPOINT_CHARS_MAX = 300
PARAMETER_CHARS_MAX = 700
DOCUMENT_CHARS_MAX = 100_000
FILES_MAX = 10
METHODS = {"get", "put", "post", "delete", "patch", "head", "options", "trace"}
# Known to JSON Schema 2020-12 and not to OpenAPI 3.0.
ONLY_3_1 = {"const", "$defs", "prefixItems", "propertyNames", "contains", "patternProperties", "if", "examples"}


def lint(document: dict[str, Any], version: str) -> list[str]:
    """Return every rule that a document breaks, in words."""
    found = [*_frame(document, version), *_operations(document), *_schemas(document, version), *_references(document)]
    if len(json.dumps(document)) > DOCUMENT_CHARS_MAX:
        found.append("the document is too long")
    return found


def _frame(document: dict[str, Any], version: str) -> Iterator[str]:
    if document.get("openapi") != version:
        yield f"openapi is not {version}"
    if not {"title", "version", "description"} <= set(document.get("info", {})):
        yield "info lacks title, version or description"
    if "summary" in document.get("info", {}) and version.startswith("3.0"):
        yield "info.summary is not known to 3.0"
    servers = [server.get("url", "") for server in document.get("servers", [])]
    if len(servers) != 1 or not re.fullmatch(r"https://[^/?#@\\s]+", servers[0]):
        yield "not exactly one https server without a path"
    schemes = document.get("components", {}).get("securitySchemes", {})
    if [(each.get("type"), each.get("scheme")) for each in schemes.values()] != [("http", "bearer")]:
        yield "not exactly one way to authenticate, a bearer credential"


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield method, path and operation."""
    for path, methods in document.get("paths", {}).items():
        for method, operation in methods.items():
            if method in METHODS:
                yield method, path, operation


def _operations(document: dict[str, Any]) -> Iterator[str]:
    every = list(operations(document))
    if not 0 < len(every) <= OPERATIONS_MAX:
        yield f"{len(every)} operations"
    names = [operation.get("operationId", "") for _, _, operation in every]
    if len(set(names)) != len(names) or not all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name) for name in names):
        yield "operationIds are not unique plain words"
    for method, path, operation in every:
        where = f"{method} {path}"
        yield from (f"{where}: {what}" for what in _operation(method, operation, document))


def _operation(method: str, operation: dict[str, Any], document: dict[str, Any]) -> Iterator[str]:
    for name in ("summary", "description"):
        if not 0 < len(operation.get(name, "")) <= ENDPOINT_CHARS_MAX:
            yield f"{name} is absent or longer than {ENDPOINT_CHARS_MAX} characters"
    if not isinstance(operation.get("x-openai-isConsequential"), bool):
        yield "x-openai-isConsequential is not said"
    if operation.get("security") != [{"bearer": []}]:
        yield "it does not say that it wants the credential"
    for parameter in operation.get("parameters", []):
        if parameter["in"] not in ("path", "query"):
            yield f"the {parameter['in']} parameter {parameter['name']} cannot be sent"
        if not 0 < len(parameter.get("description", "")) <= PARAMETER_CHARS_MAX:
            yield f"the description of {parameter['name']} is absent or too long"
    yield from _bodies(method, operation, document)


def _bodies(method: str, operation: dict[str, Any], document: dict[str, Any]) -> Iterator[str]:
    body = operation.get("requestBody")
    if body is not None and (method != "post" or list(body["content"]) != ["application/json"]):
        yield "a body that is not JSON in a POST"
    if list(operation.get("responses", {}).get("200", {}).get("content", {})) != ["application/json"]:
        yield "the answer is not JSON text"
    schema = ((body or {}).get("content", {}).get("application/json") or {}).get("schema", {})
    for name, field in resolve(schema, document).get("properties", {}).items():
        if not 0 < len(field.get("description", "")) <= PARAMETER_CHARS_MAX:
            yield f"the description of {name} is absent or too long"
        if name == "openaiFileIdRefs" and (field.get("type"), field.get("items")) != ("array", {"type": "string"}):
            yield "openaiFileIdRefs is not declared as a list of texts"
        if name == "openaiFileIdRefs" and field.get("maxItems", 99) > FILES_MAX:
            yield f"more than {FILES_MAX} files"


def resolve(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    """Return what a reference means."""
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from _nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)


def _schemas(document: dict[str, Any], version: str) -> Iterator[str]:
    for name, schema in document.get("components", {}).get("schemas", {}).items():
        if version.startswith("3.1"):
            try:
                Draft202012Validator.check_schema(schema)
            except SchemaError as fault:
                yield f"{name} is no JSON Schema: {fault.message}"
    for node in _nodes(document):
        kinds = node.get("type")
        kind = next((each for each in kinds if each != "null"), None) if isinstance(kinds, list) else kinds
        if kind == "object" and not isinstance(node.get("properties"), dict):
            yield "an object without properties"
        if kind == "array" and not isinstance(node.get("items"), dict):
            yield "an array without items"
        if version.startswith("3.0"):
            yield from _only_3_0(node, kinds)
        elif "nullable" in node:
            yield "nullable is not known to 3.1"


def _only_3_0(node: dict[str, Any], kinds: Any) -> Iterator[str]:
    if isinstance(kinds, list) or kinds == "null":
        yield f"type {kinds} is not known to 3.0"
    is_schema = isinstance(kinds, str) or "anyOf" in node or "$ref" in node
    if is_schema and (beyond := ONLY_3_1 & set(node)):
        yield f"{sorted(beyond)} are not known to 3.0"
    if isinstance(node.get("exclusiveMinimum"), float | int) and not isinstance(node.get("exclusiveMinimum"), bool):
        yield "exclusiveMinimum is a flag in 3.0"
    if "$ref" in node and len(node) > 1:
        yield "what stands beside $ref is ignored in 3.0"


def _references(document: dict[str, Any]) -> Iterator[str]:
    known = {f"#/components/schemas/{name}" for name in document.get("components", {}).get("schemas", {})}
    used = {node["$ref"] for node in _nodes(document) if isinstance(node.get("$ref"), str)}
    yield from (f"{reference} leads nowhere" for reference in sorted(used - known))
    yield from (f"{reference} is used by nobody" for reference in sorted(known - used))
