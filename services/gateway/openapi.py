"""The OpenAPI 3.1 document, from the table of operations and the bodies' models. Pure."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from services.gateway.bodies import ErrorAnswer
from services.gateway.operations import OPERATIONS, Json, Operation

_REF: Final = "#/components/schemas/{model}"
#: Statuses that any operation may answer with.
_ALWAYS: Final = (400, 401, 500, 503)
_PHRASES: Final = {499: "Cancelled"}
_ERROR: Final[Json] = {
    "application/json": {"schema": {"$ref": _REF.format(model=ErrorAnswer.__name__)}}
}

#: One server-sent event: OpenAPI 3.1 has no word for a stream of them.
_EVENT: Final[Json] = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "position of a fact in the event log"},
        "event": {"type": "string", "description": "a message's type in snake case"},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}

_DESCRIPTION: Final = """\
One prompt becomes a graph of nodes that are decoded in parallel. Reference with examples:
docs/gateway.md.
"""


def document() -> Json:
    """Return the document."""
    paths: dict[str, Json] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Skelgraph gateway",
            "version": "1",
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"key": []}, {}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
        },
    }


def _operation(operation: Operation) -> Json:
    described: Json = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {str(operation.status): _good(operation), **_bad(operation)},
    }
    if operation.parameters:
        described["parameters"] = [parameter.as_json() for parameter in operation.parameters]
    if operation.takes:
        content = {"application/json": {"schema": _ref(operation.takes)}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _good(operation: Operation) -> Json:
    content: Json = {}
    if operation.answer:
        content["application/json"] = {"schema": _ref(operation.answer)}
    if operation.streams:
        content["text/event-stream"] = {"schema": _EVENT}
    return {"description": "As asked.", "content": content}


def _bad(operation: Operation) -> Json:
    bad: Json = {}
    if operation.streams and not operation.answer:
        bad["204"] = {"description": "The last event was seen before."}
    for status in sorted({*_ALWAYS, *operation.errors}):
        phrase = _PHRASES.get(status) or HTTPStatus(status).phrase
        bad[str(status)] = {"description": phrase, "content": _ERROR}
    return bad


def _ref(model: type[BaseModel]) -> Json:
    return {"$ref": _REF.format(model=model.__name__)}


def _schemas() -> Json:
    found: list[tuple[type[BaseModel], JsonSchemaMode]] = [(ErrorAnswer, "validation")]
    for operation in OPERATIONS:
        found += [(one, "validation") for one in (operation.takes, operation.answer) if one]
    _, schemas = models_json_schema(
        list(dict.fromkeys(found)), ref_template=_REF, schema_generator=_Untitled
    )
    definitions = schemas["$defs"]
    return dict(sorted(definitions.items()))


class _Untitled(GenerateJsonSchema):
    """Leaves out the titles of fields, which only repeat their names."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False
