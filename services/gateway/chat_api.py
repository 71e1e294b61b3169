"""The OpenAI-compatible API: chat completions, streaming or not, and the list of models."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import orjson
import structlog
from starlette.responses import Response

from proto.codec import decode_preview
from proto.errors import SkelgraphError
from proto.messages import Preview, RequestFailed, SubmitRequest
from services.gateway import chat_answer, models, sse
from services.gateway.calls import Call, json_response
from services.gateway.chat_answer import AnswerText, Chunks
from services.gateway.chat_bodies import ChatCompletionRequest, Model, ModelList
from services.gateway.chat_request import read_chat, submitted
from services.gateway.cutting import Cutter
from services.gateway.errors import body_of
from services.gateway.following import Following
from services.gateway.gateway import Claim, Gateway
from services.runtime import metrics
from services.runtime.client import error_of
from services.runtime.facts import StoredFact
from services.runtime.order import Grain

log = structlog.get_logger()


class ChatApi:
    """The handlers; each takes a call and returns a response.

    Args:
        gateway: requests over the queue.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def models(self, _: Call) -> Response:
        """Answer with all model names."""
        return json_response(ModelList(data=tuple(_model(name) for name in models.MODELS)))

    async def model(self, call: Call) -> Response:
        """Answer with one of them, if it exists."""
        name = str(call.http.path_params["model"])
        models.method_of(name)
        return json_response(_model(name))

    async def complete(self, call: Call) -> Response:
        """Answer a chat completion; who leaves before its end cancels it."""
        chat = read_chat(await call.json())
        request = submitted(chat, call.caller.owner)
        key = call.idempotency_key
        claim = await self._gateway.claim(call.caller, request, key, chat.terms)
        call.means(claim.request)
        answering = Answering(self._gateway, call, chat, claim)
        async with AsyncExitStack() as stack:
            await answering.begin(stack, request)
            if not chat.stream:
                return await answering.whole()
            return answering.streamed(stack.pop_all())


class Answering:
    """One chat completion on its way.

    Args:
        gateway: requests over the queue.
        call: who asks.
        chat: what for.
        claim: the request that it means.
    """

    def __init__(
        self, gateway: Gateway, call: Call, chat: ChatCompletionRequest, claim: Claim
    ) -> None:
        self._gateway = gateway
        self._call = call
        self._chat = chat
        self._claim = claim
        self._cutter = Cutter(chat.stops, chat.limit_tokens)
        self._answer = AnswerText(claim.request, self._grain(), self._cutter)
        self._following: Following[Preview] | None = None
        self._created = int(time.time())
        self._started = time.monotonic()
        self._left_alone = False

    def _grain(self) -> Grain:
        if self._chat.stream:
            return "live"
        return "nodes" if self._cutter.is_wanted else "whole"

    async def begin(self, stack: AsyncExitStack, request: SubmitRequest) -> None:
        """Submit the request and follow it until `stack` is closed; then cancel what is open.

        Raises:
            Busy: the queue is full.
            RequestTooLarge: nothing was sent.
            QueueUnavailable: NATS does not answer.
        """
        self._following = await stack.enter_async_context(
            self._gateway.follower.follow(
                self._claim.request,
                decode_preview if self._chat.stream else None,
                new=self._claim.new,
            )
        )
        await self._gateway.submit(self._claim, request, self._call.trace)
        stack.callback(self._leave)

    async def whole(self) -> Response:
        """Return the answer when it is there.

        Raises:
            SkelgraphError: why there is none.
            ClientGone: nobody waits for it any more.
        """
        await self._call.while_there(self._until_done())
        end = self._answer.end
        if isinstance(end, RequestFailed):
            raise error_of(end.error)
        body = chat_answer.completion(self._answer, self._chat.model, self._created)
        return json_response(body, headers=chat_answer.headers(self._answer))

    def streamed(self, stack: AsyncExitStack) -> Response:
        """Return the answer as a stream; `stack` is closed at its end."""
        return sse.EventStream(
            self._pieces(),
            stack=stack,
            headers={"X-Request-Id": self._claim.request},
            write_timeout_s=self._call.limits.write_timeout_s,
        )

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        options = self._chat.stream_options
        with_usage = bool(options and options.include_usage)
        chunks = Chunks(self._claim.request, self._chat.model, self._created, with_usage=with_usage)
        yield chunks.first()
        try:
            while not self._answer.is_done:
                text = await self._next_text()
                if text:
                    self._note_first_text(text)
                yield chunks.text(text) if text else sse.KEEP_ALIVE
            if isinstance(self._answer.end, RequestFailed):
                raise error_of(self._answer.end.error)
            yield chunks.last(self._answer) + sse.DONE
        except SkelgraphError as error:
            said = body_of(error.code, error.message, error.field)
            yield sse.event(orjson.dumps(said)) + sse.DONE

    async def _until_done(self) -> None:
        while not self._answer.is_done:
            await self._next_text()

    async def _next_text(self) -> str:
        """Return text that has come; an empty one after a while of silence, or at the end.

        Raises:
            ShuttingDown: this process ends before; what can be asked for again goes on.
        """
        if self._following is None:
            raise RuntimeError("not begun")
        text, silent = "", False
        while not text and not silent and not self._answer.is_done:
            try:
                taken = await self._following.take(self._call.limits.keep_alive_s)
            except SkelgraphError:
                self._left_alone = self._claim.repeatable
                raise
            silent = not taken
            for one in taken:
                text += self._answer.fold(one.fact if isinstance(one, StoredFact) else one)
        return text

    def _note_first_text(self, text: str) -> None:
        if len(self._answer.text) == len(text):
            metrics.FIRST_TEXT_S.observe(time.monotonic() - self._started)

    def _leave(self) -> None:
        if self._answer.end is None and not self._left_alone:
            why = "its answer was cut off" if self._answer.is_done else "the client has gone"
            self._gateway.cancel_soon(self._claim.request, why)


def _model(name: str) -> Model:
    return Model(id=name, created=models.CREATED)
