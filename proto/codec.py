"""Messages to bytes and back: JSON out, strict pydantic in."""

from __future__ import annotations

from typing import Final, Literal, TypeVar

import orjson
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from proto.errors import InvalidRequest, MalformedMessage, RequestTooLarge, SkelgraphError
from proto.messages import End, Fact, Preview, Sent, SubmitRequest
from proto.names import tenant_of

M = TypeVar("M", bound=BaseModel)

FACT: Final[TypeAdapter[Fact]] = TypeAdapter(Fact)
END: Final[TypeAdapter[End]] = TypeAdapter(End)
PREVIEW: Final[TypeAdapter[Preview]] = TypeAdapter(Preview)

#: Largest command that a client may send, in bytes of its JSON.
MAX_REQUEST_BYTES: Final = 512 * 1024


def encode(message: BaseModel) -> bytes:
    """Return `message` as JSON.

    What a client sends holds nothing that it leaves at its default: services that do not know
    a newer field take it all the same, unless it is used.
    """
    if isinstance(message, Sent):
        said = message.model_dump(mode="json", exclude_defaults=True)
        return orjson.dumps({"type": type(message).__name__, **said})
    return message.__pydantic_serializer__.to_json(message)


def decode(kind: type[M], data: bytes) -> M:
    """Return the message of type `kind` in `data`.

    Raises:
        RequestTooLarge: a command of a client is larger than `MAX_REQUEST_BYTES`.
        InvalidRequest: a command of a client is not valid; names the field.
        MalformedMessage: a message of a service cannot be read.
    """
    if issubclass(kind, Sent) and len(data) > MAX_REQUEST_BYTES:
        raise RequestTooLarge(f"{len(data)} bytes, at most {MAX_REQUEST_BYTES} are taken")
    try:
        extra: Literal["forbid", "ignore"] = "forbid" if issubclass(kind, Sent) else "ignore"
        return kind.model_validate_json(data, strict=True, extra=extra)
    except ValidationError as error:
        raise _explained(
            error, InvalidRequest if issubclass(kind, Sent) else MalformedMessage
        ) from None


def decode_request(request: str, data: bytes) -> SubmitRequest:
    """Return what is asked under the id `request`.

    A tenant's request is the tenant's, whatever its sender says of the owner: NATS lets a
    tenant send under ids of its own only.

    Raises:
        RequestTooLarge: it is larger than `MAX_REQUEST_BYTES`.
        InvalidRequest: it is not valid; names the field.
    """
    submitted, tenant = decode(SubmitRequest, data), tenant_of(request)
    return submitted.model_copy(update={"owner": tenant}) if tenant else submitted


def decode_fact(data: bytes) -> Fact:
    """Return the fact in `data`; raises `MalformedMessage`."""
    return _decode_union(FACT, data)


def decode_end(data: bytes) -> End:
    """Return the end of a request in `data`; raises `MalformedMessage`."""
    return _decode_union(END, data)


def decode_preview(data: bytes) -> Preview:
    """Return the preview in `data`; raises `MalformedMessage`."""
    return _decode_union(PREVIEW, data)


U = TypeVar("U")


def _decode_union(adapter: TypeAdapter[U], data: bytes) -> U:
    try:
        return adapter.validate_json(data, strict=True, extra="ignore")
    except ValidationError as error:
        raise _explained(error, MalformedMessage) from None


def _explained(error: ValidationError, kind: type[SkelgraphError]) -> SkelgraphError:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or None
    more = error.error_count() - 1
    return kind(_said(first) + (f" (and {more} more)" if more else ""), field=field)


def _said(error: ErrorDetails) -> str:
    # This message alone quotes what was sent, which may be anything, a person's words included.
    return "its type is not known" if error["type"] == "union_tag_invalid" else error["msg"]
