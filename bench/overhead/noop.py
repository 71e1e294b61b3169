"""An engine that does nothing, within the worker: what is left is what the services cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

from proto.messages import Usage
from services.runtime.calls import ChatCall, Chunk, Completion

ENDPOINT: Final = "http://no-op"
#: What a node says in all, by default: about as much as the raw loop's payload.
WORDS: Final = "a text that was not thought about for any time at all. " * 8


class NoOpEngines:
    """Stands for a pool of engines; answers each call with the same text.

    Args:
        tokens: how many pieces the text comes in.
        gap_s: how long each piece lets wait; 0: not even a turn of the event loop.
    """

    def __init__(self, tokens: int = 1, gap_s: float = 0.0) -> None:
        size = max(1, len(WORDS) // tokens)
        self._pieces = [
            WORDS[size * n % len(WORDS) :][:size].replace(" ", "_") for n in range(tokens)
        ]
        self._gap_s = gap_s

    def stream(
        self,
        call: ChatCall,
        *,
        key: str,
        avoid: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> NoOpStream:
        """Return the reply, whatever is asked."""
        del call, key, avoid, headers
        return NoOpStream(self._pieces, self._gap_s)

    async def close(self) -> None:
        """There is nothing to close."""


class NoOpStream:
    """A reply of an engine that does nothing; see `EngineStream`."""

    endpoint = ENDPOINT

    def __init__(self, pieces: list[str], gap_s: float) -> None:
        self.first_token_ms: float | None = None
        self.completion = Completion(
            "stop", Usage(generated_tokens=len(pieces)), "no-op", self.endpoint
        )
        self._started_at = 0.0
        self._pieces = iter(pieces)
        self._gap_s = gap_s

    def so_far(self) -> Completion:
        """Return how it will end."""
        return self.completion

    async def __aenter__(self) -> Self:
        self._started_at = time.monotonic()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        piece = next(self._pieces, None)
        if piece is None:
            raise StopAsyncIteration
        if self._gap_s:
            await asyncio.sleep(self._gap_s)
        if self.first_token_ms is None:
            self.first_token_ms = (time.monotonic() - self._started_at) * 1000
        return Chunk(piece)
