"""What went wrong with an engine, told from what it sent or did not send. Pure.

Engines report the same thing in many forms: a status, JSON of four shapes, plain text, an
HTML page of a gateway, or an event inside a stream that began with 200. All come out as the
types of `proto.errors`. A detail is bounded, and never quotes the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import httpx2
import orjson
from huggingface_hub.errors import InferenceTimeoutError

from proto.errors import (
    EngineCutOff,
    EngineError,
    EngineOverloaded,
    EngineRejected,
    EngineTimedOut,
    EngineUnavailable,
    PromptTooLong,
)
from services.runtime.dialects import DIALECTS
from services.runtime.events import InBand, NotAnEvent

MAX_DETAIL_CHARS: Final = 240
#: This many letters and digits in a row of what was sent make a message a quotation.
QUOTATION_CHARS: Final = 12

# Of all families: what stands between us and an engine may speak for another one.
_TOO_LONG = re.compile("|".join(one.too_long for one in DIALECTS.values()), re.IGNORECASE)
_OVERLOADED = re.compile(
    "|".join([*(one.overloaded for one in DIALECTS.values()), "overloaded", "too many requests"]),
    re.IGNORECASE,
)
_INVALID = re.compile(r"validation|invalid_request|BadRequest", re.IGNORECASE)


class Refused(Exception):
    """An engine answered, but not with a stream of events."""

    def __init__(self, status: int, content_type: str, body: bytes, retry_after: str = "") -> None:
        self.status = status
        self.content_type = content_type
        self.body = body
        self.retry_after = retry_after
        super().__init__(status)


#: What may come out of huggingface_hub and its transport when an engine misbehaves.
FAULTS: Final = (
    Refused,
    InBand,
    NotAnEvent,
    httpx2.HTTPError,
    httpx2.InvalidURL,
    httpx2.StreamError,
)


@dataclass(frozen=True, slots=True)
class _Said:
    """An engine's own words about an error."""

    message: str
    kind: str = ""


def explain(error: Exception, *, begun: bool, prompt: Iterable[str]) -> EngineError:
    """Return `error`, one of `FAULTS`, as a type of `proto.errors`.

    Args:
        error: what was raised.
        begun: whether the stream had begun.
        prompt: the texts, and the key, that were sent; a detail that quotes them is withheld.
    """
    if isinstance(error, Refused):
        return _of_refusal(error, prompt)
    if isinstance(error, InBand):
        return _of_event(error, prompt)
    if isinstance(error, NotAnEvent | httpx2.SSEError):
        return EngineError(f"sent what is not an event of a chat completion ({_what(error)})")
    if isinstance(error, InferenceTimeoutError | httpx2.TimeoutException):
        return EngineTimedOut("no connection in time")
    if isinstance(error, httpx2.HTTPError):
        kind = EngineCutOff if begun else EngineUnavailable
        return kind(type(error).__name__)
    return EngineError(f"the stream cannot be read ({type(error).__name__})")


def _what(error: Exception) -> str:
    return str(error) if isinstance(error, NotAnEvent) else type(error).__name__


def _of_refusal(refused: Refused, prompt: Iterable[str]) -> EngineError:
    said = _said_in(refused)
    kind = _kind(said, refused.status)
    detail = _discreet(said.message, prompt)
    code = f"HTTP {refused.status}"
    return kind(
        f"{code}: {detail}" if detail else code, retry_after_s=_seconds(refused.retry_after)
    )


def _of_event(error: InBand, prompt: Iterable[str]) -> EngineError:
    said = _said(error.payload)
    return _kind(said, None)(_discreet(said.message, prompt))


def _kind(said: _Said, status: int | None) -> type[EngineError]:
    """Return the type of error; `status` is None inside a stream, where it means nothing."""
    if _TOO_LONG.search(said.message) or _TOO_LONG.search(said.kind):
        return PromptTooLong
    if status == 429 or said.kind == "overloaded" or _OVERLOADED.search(said.message):
        return EngineOverloaded
    if status is not None:
        return _kind_of_status(status)
    invalid = _INVALID.search(said.message) or _INVALID.search(said.kind)
    return EngineRejected if invalid else EngineError


def _kind_of_status(status: int) -> type[EngineError]:
    if status in {408, 504}:
        return EngineTimedOut
    if status in {502, 503}:
        return EngineUnavailable
    # 424 is how TGI says that the generation failed: nothing is wrong with the call.
    rejected = 300 <= status < 500 and status != 424
    return EngineRejected if rejected else EngineError


def _said_in(refused: Refused) -> _Said:
    if "html" in refused.content_type:
        return _Said("an HTML page")
    try:
        return _said(orjson.loads(refused.body))
    except orjson.JSONDecodeError:
        return _Said(refused.body.decode(errors="replace"))


def _said(payload: object) -> _Said:
    """Read `{"error": …}`, `{"message": …}`, `{"detail": …}`, what is inside them, or a text."""
    if not isinstance(payload, Mapping):
        return _Said(payload if isinstance(payload, str) else "")
    kind = str(payload.get("error_type") or payload.get("type") or payload.get("code") or "")
    for name in ("error", "message", "detail"):
        if payload.get(name) is not None:
            inner = _said(payload[name])
            return _Said(inner.message, inner.kind or kind)
    return _Said("", kind)


def _discreet(message: str, prompt: Iterable[str]) -> str:
    told = _one_line(message[: 4 * MAX_DETAIL_CHARS])[:MAX_DETAIL_CHARS]
    if any(_quotes(told, _one_line(text)) for text in prompt):
        return "(its message quotes the prompt)"
    return told


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _quotes(message: str, text: str) -> bool:
    """Whether a part of `text` stands in `message`, in whatever case, escapes and punctuation."""
    message, text = _bare(message), _bare(text)
    size = min(QUOTATION_CHARS, len(text))
    if size < QUOTATION_CHARS // 2:
        return False
    return any(message[at : at + size] in text for at in range(len(message) - size + 1))


def _bare(text: str) -> str:
    return "".join(filter(str.isalnum, text)).casefold()


def _seconds(retry_after: str) -> float | None:
    return float(retry_after) if retry_after.isascii() and retry_after.isdigit() else None
