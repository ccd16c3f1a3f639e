"""JSON Schema 2020-12 (jsonschema), held to what can be answered fast and without the network."""

from crank.adapters.json_schema.checker import JsonSchemaChecker

__all__ = ["JsonSchemaChecker"]
