"""Assembles the public API."""

from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from crank.api import files, models, nodes, problem, rest, streams
from crank.controller.desk import Desk

# Names that a caller may have meant when a field is unknown.
_FIELDS = sorted(
    {
        name
        for kind in (models.JobBody, models.Constraints, models.InputFileBody, models.MountBody, models.MountRequest)
        for name in kind.model_fields
    }
)


def build_api(desk: Desk, *, version: str) -> FastAPI:
    """Return the ASGI app of the API: REST under /v1, its explorer at /docs, its OpenAPI 3.1 at /openapi.json."""
    # The explorer's files come from the installed package, so it works with the network off.
    app: FastAPI = FastAPIOffline(
        title="Crank",
        version=version,
        summary="Runs the Python that AI agents write, on machines you own.",
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.desk = desk
    for part in (rest.router, streams.router, files.router, nodes.router):
        app.include_router(part)
    problem.install(app, known_fields=_FIELDS)
    _complete_openapi(app)
    return app


def _complete_openapi(app: FastAPI) -> None:
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            schemas = document["components"]["schemas"]
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            view = models.ProblemView.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(view.pop("$defs", {}))
            schemas["ProblemView"] = view
            _replace_validation_answers(document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _replace_validation_answers(document: dict[str, Any]) -> None:
    for path in document["paths"].values():
        for operation in path.values():
            answers = operation["responses"]
            if "HTTPValidationError" in str(answers.get("422", "")):
                answers["422"] = models.problems(422)[422]
