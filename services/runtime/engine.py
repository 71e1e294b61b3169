"""One engine endpoint: chat completions as streams, over huggingface_hub.

Leaving a stream in any way closes its connection at once, which is how engines are told to
stop. Time limits hold whatever the engine sends to keep the connection alive.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Mapping
from types import AsyncGeneratorType, TracebackType
from typing import Self, TypeVar

import httpx2
from huggingface_hub import AsyncInferenceClient

from proto.errors import (
    EngineCutOff,
    EngineError,
    EngineRejected,
    EngineTimedOut,
    PromptTooLong,
)
from proto.messages import FinishReason, Usage
from services.runtime import call_span, events, logs
from services.runtime.calls import (
    ChatCall,
    ChatMessage,
    Chunk,
    Completion,
    EngineLimits,
    EngineStream,
    Grammar,
    Limit,
    StreamWatcher,
    Went,
)
from services.runtime.deadlines import Deadline, next_deadline
from services.runtime.dialects import can_constrain, parameters
from services.runtime.engine_errors import FAULTS, Refused, explain
from services.runtime.engine_link import EngineLink
from services.runtime.reply import Piece, Reply, most_chars
from services.runtime.span import NOTHING, NoSpan

__all__ = [
    "ChatCall",
    "ChatMessage",
    "ChatStream",
    "Chunk",
    "Completion",
    "EngineClient",
    "EngineLimits",
    "EngineStream",
    "Grammar",
    "StreamWatcher",
]

T = TypeVar("T")


class ChatStream:
    """A reply of one endpoint; see `EngineStream` for what it is and raises.

    Args:
        client: of the endpoint.
        call: what is asked.
        headers: to send with it.
        watcher: hears how it goes.
        since: when the limits began to run, monotonic seconds; when it is entered if None.

    Attributes:
        endpoint: the URL that is asked.
        started_at: when it was entered, monotonic seconds.
        first_token_ms: from `started_at` to the first text; None before it.
    """

    def __init__(
        self,
        client: EngineLink,
        call: ChatCall,
        *,
        headers: Mapping[str, str] | None = None,
        watcher: StreamWatcher | None = None,
        since: float | None = None,
    ) -> None:
        self.endpoint = client.url
        self.started_at = 0.0
        self.first_token_ms: float | None = None
        self._client = client
        self._call = call
        self._headers = headers or {}
        self._watcher = watcher
        self._since = since
        self._hub: AsyncInferenceClient | None = None
        self._events: AsyncGenerator[str, None] | None = None
        self._reply: Reply | None = None
        self._constrained = False
        self._refusal: EngineRejected | None = None
        self._first_at: float | None = None
        self._last_at: float | None = None
        self._tokens = 0
        self._timeout: asyncio.Timeout | None = None
        self._given_up = ""
        self._limit: Limit | None = None
        self._failure: EngineError | None = None
        self._completion: Completion | None = None
        self._provider = ""
        self._span: NoSpan = NOTHING

    @property
    def completion(self) -> Completion:
        """How the reply ended; only once the iteration has ended."""
        if self._completion is None:
            raise RuntimeError("the reply has not ended")
        return self._completion

    def so_far(self) -> Completion:
        """Return how the reply would have ended here; its tokens are those that were heard."""
        if self._completion or self._reply is None:
            return self.completion
        heard = Usage(generated_tokens=self._tokens)
        return self._ended(self._reply, "stop", heard)

    async def __aenter__(self) -> Self:
        self.started_at = time.monotonic()
        if self._since is None:
            self._since = self.started_at
        if self._watcher:
            self._watcher.started(self.started_at)
        self._span = call_span.begin()
        logs.texts("engine_asked", endpoint=self.endpoint, messages=self._call.messages)
        try:
            await self._begin()
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
            piece = await self._following()
            if piece is None:
                if text := self._finish():
                    return Chunk(text)
            elif piece.decodes:
                self._note_token()
                if piece.text:
                    return self._chunk(piece.text)
        raise StopAsyncIteration

    def give_up(self, words: str) -> None:
        """Have whoever waits for this reply get `EngineTimedOut` now, with `words`."""
        self._given_up = words
        if self._timeout and not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time())

    async def _begin(self) -> None:
        grammar = self._call.grammar
        self._constrained = grammar is not None and self._client.takes(grammar)
        try:
            await self._guarded(self._open())
        except EngineRejected as refusal:
            await self._begin_again(refusal)

    async def _begin_again(self, refusal: EngineRejected) -> None:
        """Ask without the grammar, if that may be what was refused; else raise `refusal`."""
        if not self._constrained or self._tokens or isinstance(refusal, PromptTooLong):
            raise refusal
        await self._hang_up()
        self._constrained, self._failure, self._refusal = False, None, refusal
        await self._guarded(self._open())

    async def _open(self) -> None:
        client = self._client
        dialect = await client.dialect()
        self._provider = dialect.name
        self._reply = Reply(dialect, max_chars=most_chars(self._call.max_tokens))
        self._hub = client.wire.hub(self._span.headers(self._headers))
        constrained = self._constrained and can_constrain(self._call, dialect)
        self._constrained = constrained
        sent = parameters(self._call, dialect, model=client.model, constrained=constrained)
        with client.wire.lent() as loan:
            await self._hub.chat_completion(**sent)
        self._events = loan.events()

    async def _following(self) -> Piece | None:
        try:
            return await self._guarded(self._next())
        except EngineRejected as refusal:
            await self._begin_again(refusal)
            return Piece("", decodes=False)

    async def _next(self) -> Piece | None:
        if self._events is None or self._reply is None:
            raise RuntimeError("a stream is to be entered with `async with`, and read within")
        data = await anext(self._events, None)
        if data is None or data.strip() == events.DONE:
            return None
        return self._reply.take(events.read(data))

    async def _guarded(self, step: Awaitable[T]) -> T | None:
        """Await `step` within the limits; its faults come out as types of `proto.errors`."""
        deadline = self._deadline()
        left_s = 0 if self._given_up else deadline.at - time.monotonic()
        try:
            async with asyncio.timeout(left_s) as self._timeout:
                return await step
        except EngineError as error:
            self._fail(error)
        except FAULTS as error:
            self._fail(self._explain(error), cause=error)
        except TimeoutError:
            self._limit = None if self._given_up else deadline.limit
            self._fail(EngineTimedOut(self._given_up or deadline.words))
        finally:
            self._timeout = None
        return None

    def _explain(self, fault: Exception) -> EngineError:
        prompt = [message.content for message in self._call.messages]
        prompt.append(self._client.wire.api_key or "")
        if isinstance(fault, Refused) and fault.status == httpx2.codes.NOT_FOUND:
            self._client.forget()  # the route, or the model, is not what it was
        return explain(fault, begun=self._events is not None, prompt=prompt)

    def _fail(self, failure: EngineError, *, cause: Exception | None = None) -> None:
        if self._reply and self._reply.finish_reason:
            # The text is whole. What breaks after its end costs the usage, at most.
            return
        self._failure = failure
        raise failure from cause

    def _deadline(self) -> Deadline:
        """Return the limit that passes next."""
        since = time.monotonic() if self._since is None else self._since
        ended = bool(self._reply and self._reply.finish_reason)
        return next_deadline(self._client.limits, since, self._last_at, ended=ended)

    def _note_token(self) -> None:
        before, now = self._last_at, time.monotonic()
        self._last_at = now
        self._tokens += 1
        if before is None:
            self._first_at = now
            self._note_taken()
        if self._watcher:
            gap_s = None if before is None else now - before
            self._watcher.heard(self.started_at, now, gap_s)

    def _note_taken(self) -> None:
        """If the call was taken without its grammar only, the grammar is what was refused."""
        if self._refusal and self._call.grammar:
            self._client.learn(self._call.grammar, self._refusal)
            self._refusal = None

    def _chunk(self, text: str) -> Chunk:
        if self.first_token_ms is None:
            self.first_token_ms = (time.monotonic() - self.started_at) * 1000
        return Chunk(text)

    def _finish(self) -> str:
        """Note how the reply ended; return what of it was held back."""
        reply = self._reply
        if reply is None or reply.finish_reason is None:
            self._failure = EngineCutOff("it ended without a finish reason")
            raise self._failure
        if rest := reply.rest():
            return rest
        self._completion = self._ended(reply, reply.finish_reason, reply.usage)
        self._note_taken()
        return ""

    def _ended(self, reply: Reply, reason: FinishReason, usage: Usage) -> Completion:
        model = self._client.model or self._client.served_model or reply.model
        return Completion(reason, usage, model, self.endpoint)

    async def _leave(self) -> None:
        watcher, self._watcher = self._watcher, None
        try:
            await self._hang_up()
        finally:
            if watcher:
                watcher.ended(self._went())
            self._tell_span()

    def _tell_span(self) -> None:
        span, self._span = self._span, NOTHING
        if span is not NOTHING:
            client = self._client
            call_span.end(
                span,
                self._call,
                self._went(),
                self._completion,
                url=client.url,
                model=client.model or client.served_model,
                provider=self._provider,
            )

    async def _hang_up(self) -> None:
        """Close the connection; the engine stops decoding when it sees that."""
        hub, self._hub, opened, self._events = self._hub, None, self._events, None
        # It runs if another task than the reader leaves; closing the response ends it then.
        running = isinstance(opened, AsyncGeneratorType) and opened.ag_running
        if opened and not running:
            await opened.aclose()
        if hub:
            await hub.close()  # type: ignore[no-untyped-call]

    def _went(self) -> Went:
        return Went(
            started_at=self.started_at,
            first_at=self._first_at,
            last_at=self._last_at,
            tokens=self._tokens,
            complete=self._completion is not None,
            failure=self._failure,
            limit=self._limit,
        )


class EngineClient(EngineLink):
    """One endpoint; see `EngineLink` for its arguments."""

    def stream(
        self,
        call: ChatCall,
        *,
        headers: Mapping[str, str] | None = None,
        watcher: StreamWatcher | None = None,
        since: float | None = None,
    ) -> ChatStream:
        """Return the reply to `call`; it is sent when the stream is entered.

        Args:
            call: what is asked.
            headers: to send with it, such as `traceparent`.
            watcher: hears when the stream is entered and left.
            since: when the limits began to run, monotonic seconds; when it is entered if None.
        """
        return ChatStream(self, call, headers=headers, watcher=watcher, since=since)
