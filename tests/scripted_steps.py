"""What a script may tell the scripted engine to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Begin:
    """Send the head of the reply; the first other step does it too."""


@dataclass(frozen=True, slots=True)
class Say:
    text: str


@dataclass(frozen=True, slots=True)
class Think:
    text: str


@dataclass(frozen=True, slots=True)
class Wait:
    until: asyncio.Event | float


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """An SSE comment, as TGI sends them in silence."""


@dataclass(frozen=True, slots=True)
class Fail:
    """Answer with an error instead of a stream; `chunked` leaves out the Content-Length."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    chunked: bool = False


@dataclass(frozen=True, slots=True)
class FailInBand:
    """An error as an event; nothing comes after it but `[DONE]`."""

    payload: Any


@dataclass(frozen=True, slots=True)
class Cut:
    """Break the connection off."""


@dataclass(frozen=True, slots=True)
class Garbage:
    """These bytes, as they are, within the body."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Finish:
    """A proper end. `usage` replaces what would be counted; `done` is the last line."""

    reason: str = "stop"
    usage: Mapping[str, Any] | None = None
    cached_tokens: int = 0
    done: bytes = b"data: [DONE]\n\n"


Step = Begin | Say | Think | Wait | KeepAlive | Fail | FailInBand | Cut | Garbage | Finish
Script = Callable[[Json], Iterable[Step] | AsyncIterator[Step]]


@dataclass(eq=False)
class Call:
    """A call that the engine got.

    `waiting` is set when the script first waits, `left` when the client went before the reply's
    end, `over` at the end in any case.
    """

    path: str
    headers: Mapping[str, str]
    body: Json
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    said: int = 0
