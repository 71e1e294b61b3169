"""What goes wrong over HTTP: further error types, and the status and form of every one."""

from __future__ import annotations

from typing import Final

from proto.errors import Busy, InvalidRequest, SkelgraphError

Json = dict[str, object]


class NoSuchRoute(SkelgraphError):
    """There is nothing here."""

    code = "not_found"


class MethodNotAllowed(SkelgraphError):
    """The method is not allowed here."""

    code = "method_not_allowed"


class UnsupportedMediaType(SkelgraphError):
    """The body must be JSON, and say so in Content-Type."""

    code = "unsupported_media_type"


class RequestTimedOut(SkelgraphError):
    """Headers or body did not come in time."""

    code = "request_timed_out"


class HeadersTooLarge(SkelgraphError):
    """Headers or trailers are too large."""

    code = "headers_too_large"


class TooManyConnections(SkelgraphError):
    """This gateway has as many connections as it may have."""

    code = "too_many_connections"
    retryable = True


class InvalidApiKey(InvalidRequest):
    """A valid API key is needed: `Authorization: Bearer KEY`."""

    code = "invalid_api_key"


class WrongHost(SkelgraphError):
    """Without API keys only requests to this machine's own names are taken."""

    code = "wrong_host"


class UnknownModel(SkelgraphError):
    """The model does not exist."""

    code = "model_not_found"


class UnsupportedParameter(SkelgraphError):
    """This parameter, or this value of it, is not supported."""

    code = "unsupported_parameter"


class UnknownParameter(SkelgraphError):
    """There is no such parameter."""

    code = "unknown_parameter"


class IdempotencyKeyReused(SkelgraphError):
    """The idempotency key was used before, with another body."""

    code = "idempotency_key_reused"


class TooManyRequests(Busy):
    """This key has as many requests in flight as it may have."""

    code = "too_many_requests"


class TokensPerMinute(Busy):
    """This key has used the tokens that it may use in a minute."""

    code = "tokens_per_minute"


class TooManyStreams(Busy):
    """This key has as many event streams open at this gateway as it may have."""

    code = "too_many_streams"


class ShuttingDown(SkelgraphError):
    """This gateway is shutting down; ask again."""

    code = "shutting_down"
    retryable = True


#: Error codes by HTTP status; what is not named is 502 (an engine failed) or 500.
_STATUS: Final = {
    400: ("invalid_request", "unsupported_parameter", "unknown_parameter", "prompt_too_long"),
    401: ("invalid_api_key",),
    403: ("wrong_host",),
    404: ("model_not_found", "unknown_request", "not_found"),
    405: ("method_not_allowed",),
    408: ("request_timed_out",),
    409: ("idempotency_key_reused",),
    413: ("request_too_large", "message_too_large"),
    415: ("unsupported_media_type",),
    429: ("busy", "too_many_requests", "tokens_per_minute", "too_many_streams"),
    431: ("headers_too_large",),
    499: ("cancelled",),
    502: ("node_gave_up", "plan_rejected", "empty_text", "worker_lost"),
    503: (
        "queue_unavailable",
        "not_confirmed",
        "not_provisioned",
        "shutting_down",
        "too_many_connections",
    ),
    504: ("deadline_exceeded",),
}
_STATUS_OF: Final = {code: status for status, codes in _STATUS.items() for code in codes}
_TYPES: Final = {401: "authentication_error", 429: "rate_limit_error", 499: "cancelled_error"}
#: What a client is told to wait where nothing better is known.
RETRY_AFTER_S: Final = 2.0


def status_of(code: str) -> int:
    """Return the HTTP status of an error code."""
    return _STATUS_OF.get(code, 502 if code.startswith("engine_") else 500)


def body_of(code: str, message: str, field: str | None = None) -> Json:
    """Return an error in OpenAI's form."""
    status = status_of(code)
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": field, "code": code}}


def headers_of(error: SkelgraphError) -> dict[str, str]:
    """Return the headers that go with an error."""
    status = status_of(error.code)
    if status == 401:
        return {"WWW-Authenticate": "Bearer"}
    if status in {429, 503}:
        return {"Retry-After": f"{max(1, round(error.retry_after_s or RETRY_AFTER_S))}"}
    return {}
