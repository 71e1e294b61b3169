"""Errors with a stable code, the same in logs, dead letters, HTTP bodies and metrics.

The docstring of a type is its message. `retryable` says whether the same thing may
succeed when tried again; it never depends on the text.
"""

from __future__ import annotations

import inspect
from typing import ClassVar


class SkelgraphError(Exception):
    """Something went wrong inside Skelgraph."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False

    def __init__(
        self, detail: str = "", *, field: str | None = None, retry_after_s: float | None = None
    ) -> None:
        self.detail = detail
        self.field = field
        self.retry_after_s = retry_after_s
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """One sentence for a person: the type's message, the field and the detail."""
        said = (inspect.getdoc(type(self)) or self.code).split("\n")[0].rstrip(".")
        named = f"{said} ({self.field})" if self.field else said
        return f"{named}: {self.detail}" if self.detail else f"{named}."


class InvalidRequest(SkelgraphError):
    """The request is not valid."""

    code = "invalid_request"


class RequestTooLarge(SkelgraphError):
    """The request is larger than the limit."""

    code = "request_too_large"


class MalformedMessage(SkelgraphError):
    """A message on the queue cannot be read."""

    code = "malformed_message"


class MessageTooLarge(SkelgraphError):
    """A message is larger than NATS takes (body and headers)."""

    code = "message_too_large"


class Busy(SkelgraphError):
    """The service is at its limit."""

    code = "busy"
    retryable = True


class Cancelled(SkelgraphError):
    """The request was cancelled."""

    code = "cancelled"


class DeadlineExceeded(SkelgraphError):
    """The request was not answered before its deadline."""

    code = "deadline_exceeded"


class QueueUnavailable(SkelgraphError):
    """NATS does not answer."""

    code = "queue_unavailable"
    retryable = True


class NotConfirmed(QueueUnavailable):
    """NATS has not confirmed what was sent; it is safe to send it again under the same id."""

    code = "not_confirmed"


class NotProvisioned(SkelgraphError):
    """The streams or consumers are missing; run `skelgraph provision`."""

    code = "not_provisioned"
    retryable = True


class AddressUnavailable(SkelgraphError):
    """The process cannot listen on its address."""

    code = "address_unavailable"


class WorkerLost(SkelgraphError):
    """All that worked on it died, again and again."""

    code = "worker_lost"
    retryable = True


class EngineError(SkelgraphError):
    """The engine failed."""

    code = "engine_failed"
    retryable = True


class EngineUnavailable(EngineError):
    """The engine cannot be reached."""

    code = "engine_unavailable"


class EngineOverloaded(EngineError):
    """The engine is at its limit of requests."""

    code = "engine_overloaded"


class EngineTimedOut(EngineError):
    """The engine took too long."""

    code = "engine_timed_out"


class EngineCutOff(EngineError):
    """The engine broke off in the middle of its reply."""

    code = "engine_cut_off"


class EngineRejected(EngineError):
    """The engine refused the call."""

    code = "engine_rejected"
    retryable = False


class PromptTooLong(EngineRejected):
    """The prompt does not fit into the model's context."""

    code = "prompt_too_long"


class EmptyText(EngineError):
    """The model returned no text."""

    code = "empty_text"


class PlanRejected(SkelgraphError):
    """The model's plan is not a valid skeleton."""

    code = "plan_rejected"


class PlanContested(SkelgraphError):
    """Another planner goes on with this plan."""

    code = "plan_contested"
    retryable = True


class UnknownRequest(SkelgraphError):
    """Nothing is known of this request."""

    code = "unknown_request"


class RequestIdTaken(SkelgraphError):
    """The request id stands for another request."""

    code = "request_id_taken"


class LetterNotFound(SkelgraphError):
    """There is no such dead letter."""

    code = "letter_not_found"


class RequestOpen(SkelgraphError):
    """The request is still being answered."""

    code = "request_open"
    retryable = True


class RequestGone(SkelgraphError):
    """The request is no longer kept, so it cannot be submitted again."""

    code = "request_gone"


class NodeGaveUp(SkelgraphError):
    """A node failed on its last attempt."""

    code = "node_gave_up"


def all_errors() -> dict[str, type[SkelgraphError]]:
    """Return every error type of this module by its code; others may derive their own."""
    found: dict[str, type[SkelgraphError]] = {}
    waiting: list[type[SkelgraphError]] = [SkelgraphError]
    while waiting:
        error = waiting.pop()
        if error.__module__ == __name__:
            found[error.code] = error
        waiting.extend(error.__subclasses__())
    return found
