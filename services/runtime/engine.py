"""One engine endpoint: chat completions as streams, over huggingface_hub.

Leaving a stream in any way closes its connection at once, which is how engines are told to
stop. Time limits hold whatever the engine sends to keep the connection alive.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from types import TracebackType
from typing import Self, TypeVar, cast

import structlog
from huggingface_hub import AsyncInferenceClient, ChatCompletionStreamOutput

from proto.errors import EngineCutOff, EngineError, EngineTimedOut, EngineUnavailable
from services.runtime.calls import (
    ChatCall,
    ChatMessage,
    Chunk,
    Completion,
    EngineLimits,
    Grammar,
    StreamWatcher,
)
from services.runtime.dialects import Dialect, parameters, probe
from services.runtime.engine_errors import FAULTS, explain
from services.runtime.engine_http import Wire, answering, base_url
from services.runtime.reply import Piece, Reply

__all__ = [
    "ChatCall",
    "ChatMessage",
    "Chunk",
    "Completion",
    "EngineClient",
    "EngineLimits",
    "EngineStream",
    "Grammar",
    "StreamWatcher",
]

log = structlog.get_logger()

T = TypeVar("T")


class EngineStream:
    """A reply as it is decoded: an async context manager and an async iterator of `Chunk`.

    Entering it sends the call and waits until the engine has taken it. Entering and iterating
    raise:

        EngineUnavailable: it cannot be reached.
        EngineOverloaded: it is at its limit.
        EngineRejected, PromptTooLong: it refused the call.
        EngineTimedOut: one of the limits has passed.
        EngineCutOff: the reply broke off.
        EngineError: it failed in another way.

    Attributes:
        endpoint: the URL that is asked.
        started_at: when it was entered, monotonic seconds.
        first_token_ms: from `started_at` to the first text; None before it.
    """

    def __init__(
        self,
        client: EngineClient,
        call: ChatCall,
        *,
        headers: Mapping[str, str] | None = None,
        watcher: StreamWatcher | None = None,
    ) -> None:
        self.endpoint = client.url
        self.started_at = 0.0
        self.first_token_ms: float | None = None
        self._client = client
        self._call = call
        self._headers = headers or {}
        self._watcher = watcher
        self._hub: AsyncInferenceClient | None = None
        self._events: AsyncIterator[ChatCompletionStreamOutput] | None = None
        self._reply: Reply | None = None
        self._decoded_at: float | None = None
        self._failure: EngineError | None = None
        self._completion: Completion | None = None

    @property
    def completion(self) -> Completion:
        """How the reply ended; only once the iteration has ended."""
        if self._completion is None:
            raise RuntimeError("the reply has not ended")
        return self._completion

    async def __aenter__(self) -> Self:
        self.started_at = time.monotonic()
        if self._watcher:
            self._watcher.started()
        try:
            await self._guarded(self._open())
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._leave()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        while self._completion is None and self._failure is None:
            piece = await self._guarded(self._next())
            if piece is None:
                self._finish()
            elif piece.decodes:
                self._decoded_at = time.monotonic()
                if piece.text:
                    return self._chunk(piece.text)
        raise StopAsyncIteration

    async def _open(self) -> None:
        dialect = await self._client.dialect()
        self._reply = Reply(dialect)
        self._hub = self._client.wire.hub(self._headers)
        sent = parameters(self._call, dialect, model=self._client.model)
        with self._client.wire.lent():
            reply = await self._hub.chat_completion(**sent)
        self._events = cast("AsyncIterator[ChatCompletionStreamOutput]", reply)

    async def _next(self) -> Piece | None:
        if self._events is None or self._reply is None:
            raise RuntimeError("a stream is to be entered with `async with`, and read within")
        event = await anext(self._events, None)
        return None if event is None else self._reply.take(event)

    async def _guarded(self, step: Awaitable[T]) -> T | None:
        """Await `step` within the limits; its faults come out as types of `proto.errors`."""
        limit, left_s = self._left()
        try:
            async with asyncio.timeout(left_s):
                return await step
        except EngineError as error:
            self._fail(error)
        except FAULTS as error:
            self._fail(self._explain(error), cause=error)
        except TimeoutError:
            self._fail(EngineTimedOut(limit))
        return None

    def _explain(self, fault: Exception) -> EngineError:
        prompt = [message.content for message in self._call.messages]
        return explain(fault, begun=self._events is not None, prompt=prompt)

    def _fail(self, failure: EngineError, *, cause: Exception | None = None) -> None:
        if self._reply and self._reply.finish_reason:
            # The text is whole. What breaks after its end costs the usage, at most.
            return
        self._failure = failure
        raise failure from cause

    def _left(self) -> tuple[str, float]:
        """Return the limit that passes next, in words, and the seconds left of it."""
        limits, now = self._client.limits, time.monotonic()
        total = (self.started_at + limits.total_s, f"not done in {limits.total_s:g} s")
        if self._decoded_at is None:
            first_s = limits.first_token_s
            step = (self.started_at + first_s, f"no text in {first_s:g} s")
        else:
            between_s = limits.between_tokens_s
            step = (self._decoded_at + between_s, f"no more text in {between_s:g} s")
        deadline, words = min(step, total)
        return words, deadline - now

    def _chunk(self, text: str) -> Chunk:
        if self.first_token_ms is None:
            self.first_token_ms = (time.monotonic() - self.started_at) * 1000
            self._answered()
        return Chunk(text)

    def _finish(self) -> None:
        reply = self._reply
        if reply is None or reply.finish_reason is None:
            self._failure = EngineCutOff("it ended without a finish reason")
            raise self._failure
        model = self._client.model or self._client.served_model or reply.model
        self._completion = Completion(reply.finish_reason, reply.usage, model, self.endpoint)
        self._answered()

    def _answered(self) -> None:
        if self._watcher:
            self._watcher.answered(self.started_at)

    async def _leave(self) -> None:
        """Close the connection; the engine stops decoding when it sees that."""
        hub, self._hub, self._events = self._hub, None, None
        watcher, self._watcher = self._watcher, None
        try:
            if hub:
                await hub.close()  # type: ignore[no-untyped-call]
        finally:
            if watcher:
                watcher.ended(self.started_at, self._failure)


class EngineClient:
    """One endpoint.

    Args:
        url: of the server, with or without `/v1`.
        api_key: its key. Never a token of Hugging Face that lies about in the environment.
        model: name to send; by default what the engine's dialect wants.
        dialect: of the engine; asked of it before the first call if None.
        limits: how long it may take.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        model: str | None = None,
        dialect: Dialect | None = None,
        limits: EngineLimits | None = None,
    ) -> None:
        self.url = base_url(url)
        self.model = model
        self.limits = limits or EngineLimits()
        self.wire = Wire(self.url, api_key=api_key, connect_s=self.limits.connect_s)
        self._dialect = dialect
        self._probing = asyncio.Lock()
        self._closed = False

    @property
    def served_model(self) -> str:
        """The model's name as the engine told it; empty if it did not."""
        return self._dialect.served_model if self._dialect else ""

    def stream(
        self,
        call: ChatCall,
        *,
        headers: Mapping[str, str] | None = None,
        watcher: StreamWatcher | None = None,
    ) -> EngineStream:
        """Return the reply to `call`; it is sent when the stream is entered.

        Args:
            call: what is asked.
            headers: to send with it, such as `traceparent`.
            watcher: hears when the stream is entered and left.
        """
        return EngineStream(self, call, headers=headers, watcher=watcher)

    async def dialect(self) -> Dialect:
        """Return how the engine wants to be spoken to; asks it once.

        Raises:
            EngineUnavailable, EngineTimedOut, EngineRejected: it could not be asked; the next
                call asks again.
        """
        if self._closed:
            raise EngineUnavailable("the client is closed")
        async with self._probing:
            if self._dialect is None:
                async with self.wire.http() as http, answering(self.url, self.limits.check_s):
                    self._dialect = await probe(self.url, http)
                log.info("engine_found", endpoint=self.url, dialect=self._dialect.name)
        return self._dialect

    async def check(self) -> None:
        """Return if the engine is healthy.

        Raises:
            EngineUnavailable: it cannot be reached, or says that it is not.
            EngineTimedOut: it did not answer in `check_s`.
            EngineRejected: it wants another key.
        """
        async with self.wire.http() as http, answering(self.url, self.limits.check_s):
            reply = await http.get(f"{self.url}/health")
            if reply.status_code in {404, 405}:
                reply = await http.get(f"{self.url}/v1/models")
        if not reply.is_success:
            raise EngineUnavailable(f"{self.url}: HTTP {reply.status_code}")
        await self.dialect()

    async def close(self) -> None:
        """Close all connections; streams that are open break off."""
        self._closed = True
        await self.wire.close()
