"""What one server-sent event of a chat completion says: JSON in, a mapping out. Pure.

huggingface_hub's own parser costs about 60 times what `orjson.loads` costs, an event (ADR 0017),
and breaks texts that contain U+2028, U+2029 or U+0085, which JSON leaves as they are and it takes
for the ends of lines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import orjson

#: What ends a stream.
DONE: Final = "[DONE]"
#: No event is longer, in bytes.
MAX_EVENT_BYTES: Final = 1024 * 1024

Event = Mapping[str, Any]


class NotAnEvent(Exception):
    """The engine sent something else than an event of a chat completion; says what, not which."""


class InBand(Exception):
    """The engine told of an error in an event.

    Attributes:
        payload: the whole event.
    """

    def __init__(self, payload: Event) -> None:
        self.payload = payload
        super().__init__()


def read(data: str) -> Event:
    """Return the event in `data`.

    Raises:
        InBand: it tells of an error.
        NotAnEvent: it is no JSON object.
    """
    event = _json(data)
    if not isinstance(event, dict):
        raise NotAnEvent(type(event).__name__)
    # vLLM and llama.cpp name the object; TGI and SGLang have `error` alone.
    if event.get("error") is not None or event.get("object") == "error":
        raise InBand(event)
    return event


def mended(text: str) -> str:
    """Return `text` with lone halves of surrogate pairs replaced by U+FFFD.

    Neither NATS messages nor HTTP bodies can carry them: they are not Unicode text.
    """
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _json(data: str) -> object:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        if "\\ud" not in data.lower():
            raise NotAnEvent("no JSON") from None
    # A character that a tokenizer cut in two may come as two escapes in two events.
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise NotAnEvent("no JSON") from None
