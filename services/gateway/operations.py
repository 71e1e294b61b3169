"""Every route of the HTTP API, in one table: what the server routes and OpenAPI describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from pydantic import BaseModel

from proto.messages import SkeletonDrafted
from proto.names import REQUEST_ID_PATTERN
from services.gateway.bodies import (
    MAX_NUMBER,
    Cancelled,
    NewRequest,
    NewSkeleton,
    RequestList,
    RequestRef,
    RequestView,
)
from services.gateway.chat_bodies import ChatCompletion, ChatCompletionRequest, Model, ModelList
from services.gateway.idempotency import KEY_PATTERN, MAX_KEY_CHARS
from services.gateway.models import MODELS

Json = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter in the path, the query or a header."""

    name: str
    place: Literal["path", "query", "header"]
    schema: Mapping[str, object]
    description: str

    def as_json(self) -> Json:
        """Return it as OpenAPI has it."""
        return {
            "name": self.name,
            "in": self.place,
            "required": self.place == "path",
            "description": self.description,
            "schema": dict(self.schema),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A route.

    Args:
        name: unique among the operations; names its handler and stands in metrics.
        method: of HTTP.
        path: with `{parameter}` for what varies.
        summary: what it is for, in a line.
        status: of a good answer.
        answer: body of a good answer.
        takes: body of the request.
        streams: the answer may be, or is, a stream of server-sent events.
        parameters: in path, query and headers.
        errors: statuses beside those that every route may have.
    """

    name: str
    method: Literal["GET", "POST", "DELETE"]
    path: str
    summary: str
    status: int = 200
    answer: type[BaseModel] | None = None
    takes: type[BaseModel] | None = None
    streams: bool = False
    parameters: tuple[Parameter, ...] = field(default=())
    errors: tuple[int, ...] = ()


_ID: Final = Parameter(
    name="id",
    place="path",
    schema={"type": "string", "pattern": REQUEST_ID_PATTERN},
    description="Id of the request.",
)
_MODEL: Final = Parameter(
    name="model",
    place="path",
    schema={"type": "string", "enum": list(MODELS)},
    description="Name of the model.",
)
_LIMIT: Final = Parameter(
    name="limit",
    place="query",
    schema={"type": "integer", "minimum": 1, "maximum": MAX_NUMBER, "default": 20},
    description="How many at most; never more than 50.",
)
_SEQUENCE: Final = {"type": "integer", "minimum": 0, "maximum": MAX_NUMBER}
_LAST_EVENT: Final = Parameter(
    name="Last-Event-ID",
    place="header",
    schema={"type": "string", "pattern": "^[0-9]{0,18}$"},
    description="Facts up to this one are left out; as `after`, and stronger. Empty is none.",
)
_AFTER: Final = Parameter(
    name="after",
    place="query",
    schema=_SEQUENCE,
    description="Facts up to this one are left out.",
)
_PREVIEWS: Final = Parameter(
    name="previews",
    place="query",
    schema={"type": "boolean", "default": True},
    description="`false` leaves out what is not a fact.",
)
_IDEMPOTENCY: Final = Parameter(
    name="Idempotency-Key",
    place="header",
    schema={
        "type": "string",
        "minLength": 1,
        "maxLength": MAX_KEY_CHARS,
        "pattern": KEY_PATTERN,
    },
    description="The same key and body give the same request, at any gateway.",
)
_BODY_ERRORS: Final = (408, 409, 413, 415, 429)

OPERATIONS: Final[tuple[Operation, ...]] = (
    Operation(
        name="create_chat_completion",
        method="POST",
        path="/v1/chat/completions",
        summary="Answers as OpenAI's API does; closing the connection cancels.",
        takes=ChatCompletionRequest,
        answer=ChatCompletion,
        streams=True,
        parameters=(_IDEMPOTENCY,),
        errors=(*_BODY_ERRORS, 404, 499, 502, 504),
    ),
    Operation(
        name="list_models",
        method="GET",
        path="/v1/models",
        summary="The names of the methods.",
        answer=ModelList,
    ),
    Operation(
        name="show_model",
        method="GET",
        path="/v1/models/{model}",
        summary="One of them.",
        answer=Model,
        parameters=(_MODEL,),
        errors=(404,),
    ),
    Operation(
        name="submit_request",
        method="POST",
        path="/v1/requests",
        summary="Submits a request and answers at once.",
        status=202,
        takes=NewRequest,
        answer=RequestRef,
        parameters=(_IDEMPOTENCY,),
        errors=_BODY_ERRORS,
    ),
    Operation(
        name="list_requests",
        method="GET",
        path="/v1/requests",
        summary="Recent requests of this key, newest first.",
        answer=RequestList,
        parameters=(_LIMIT,),
    ),
    Operation(
        name="show_request",
        method="GET",
        path="/v1/requests/{id}",
        summary="A request as it stands.",
        answer=RequestView,
        parameters=(_ID,),
        errors=(404,),
    ),
    Operation(
        name="cancel_request",
        method="DELETE",
        path="/v1/requests/{id}",
        summary="Cancels a request; answers when its end is stored.",
        answer=Cancelled,
        parameters=(_ID,),
        errors=(404,),
    ),
    Operation(
        name="follow_request",
        method="GET",
        path="/v1/requests/{id}/events",
        summary="Events of a request until its end; `204` when the last one was seen.",
        streams=True,
        parameters=(_ID, _LAST_EVENT, _AFTER, _PREVIEWS),
        errors=(404,),
    ),
    Operation(
        name="draft_skeleton",
        method="POST",
        path="/v1/skeletons",
        summary="Plans and decodes nothing; closing the connection cancels.",
        takes=NewSkeleton,
        answer=SkeletonDrafted,
        parameters=(_IDEMPOTENCY,),
        errors=(*_BODY_ERRORS, 499, 502, 504),
    ),
)
