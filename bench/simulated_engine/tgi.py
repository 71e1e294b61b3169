"""The routes of text-generation-inference 3.3.7, over the core."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from bench.simulated_engine import tgi_frames
from bench.simulated_engine.asked import Generate, GenerateParameters, TgiChat, TgiCompletion
from bench.simulated_engine.core import Core
from bench.simulated_engine.exchange import Exchange
from bench.simulated_engine.faults import Fault
from bench.simulated_engine.jobs import Job
from bench.simulated_engine.plays import Broken, Play
from bench.simulated_engine.tgi_checks import MAX_CLIENT_BATCH, Limits
from bench.simulated_engine.tgi_jobs import (
    Refusal,
    TgiJobs,
    Unreadable,
    permit,
    read,
    simple_tokens,
    template,
    turns_of,
)
from bench.simulated_engine.tgi_metrics import info, metrics, timings

_SSE: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-compute-type", b"gpu+optimized"),
    (b"x-accel-buffering", b"no"),
)
_STATUS: Final = {
    "overloaded": 429,
    "validation": 422,
    "tool_error": 422,
    "generation": 424,
    "incomplete_generation": 500,
}


class Tgi:
    """TGI's routes.

    Args:
        core: the engine.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        profile = core.options.profile
        self._limits = Limits(
            profile.max_input_tokens, profile.max_total_tokens, core.options.max_stop
        )
        self._jobs = TgiJobs(core, self._limits)
        self._model = core.options.model_name
        self.open_routes: dict[tuple[str, str], Callable[[Exchange], Awaitable[None]]] = {
            ("GET", "/"): self._health,
            ("GET", "/health"): self._health,
            ("GET", "/ping"): self._health,
            ("GET", "/info"): self._info,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/v1/models"): self._models,
            ("POST", "/chat_tokenize"): self._chat_tokenize,
        }
        self.keyed_routes: dict[tuple[str, str], Callable[[Exchange], Awaitable[None]]] = {
            ("POST", "/"): self._compatible,
            ("POST", "/generate"): self._generate,
            ("POST", "/generate_stream"): self._generate_stream,
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._completions,
            ("POST", "/tokenize"): self._tokenize,
        }

    async def answer(self, exchange: Exchange) -> None:
        """Answer a request."""
        route = (exchange.method, exchange.path)
        try:
            if route in self.open_routes:
                await self.open_routes[route](exchange)
            elif route not in self.keyed_routes:
                await self._unknown(exchange)
            elif not self._may(exchange):
                await exchange.whole(401, b"")
            else:
                await self.keyed_routes[route](exchange)
        except Unreadable as unreadable:
            await exchange.plain(unreadable.status, unreadable.text)
        except Refusal as refusal:
            self._core.counts.failed[refusal.error_type] += 1
            await exchange.json(
                _STATUS[refusal.error_type],
                {"error": refusal.message, "error_type": refusal.error_type},
            )

    def _may(self, exchange: Exchange) -> bool:
        key = self._core.options.api_key
        told = exchange.headers.get(b"authorization", b"").decode("latin-1")
        return not key or told.lower() == f"bearer {key}".lower()

    # --- what needs no generation ---

    async def _unknown(self, exchange: Exchange) -> None:
        known = {path for _, path in (*self.open_routes, *self.keyed_routes)}
        await exchange.whole(405 if exchange.path in known else 404, b"")

    async def _health(self, exchange: Exchange) -> None:
        if self._core.healthy:
            await exchange.whole(200, b"")
        else:
            await exchange.json(503, {"error": "unhealthy", "error_type": "healthcheck"})

    async def _info(self, exchange: Exchange) -> None:
        await exchange.json(200, info(self._core.options, self._limits))

    async def _models(self, exchange: Exchange) -> None:
        model = {"id": self._model, "object": "model", "created": 0, "owned_by": self._model}
        await exchange.json(200, {"object": "list", "data": [model]})

    async def _metrics(self, exchange: Exchange) -> None:
        await exchange.plain(200, metrics(self._core))

    async def _tokenize(self, exchange: Exchange) -> None:
        asked = await read(exchange, Generate)
        await exchange.json(200, simple_tokens(asked.inputs))

    async def _chat_tokenize(self, exchange: Exchange) -> None:
        asked = await read(exchange, TgiChat)
        text = template(turns_of(asked))
        answer = {"tokenize_response": simple_tokens(text), "templated_text": text}
        await exchange.json(200, answer)

    # --- native ---

    async def _compatible(self, exchange: Exchange) -> None:
        asked = await read(exchange, Generate)
        # With a pipeline tag other than text-generation, or none, TGI would not do this.
        if asked.parameters is None:
            asked.parameters = GenerateParameters(do_sample=True)
        if asked.parameters.return_full_text is None:
            asked.parameters.return_full_text = True
        if asked.stream:
            await self._native_stream(exchange, asked)
        else:
            await self._native_whole(exchange, asked, listed=True)

    async def _generate(self, exchange: Exchange) -> None:
        await self._native_whole(exchange, await read(exchange, Generate), listed=False)

    async def _generate_stream(self, exchange: Exchange) -> None:
        await self._native_stream(exchange, await read(exchange, Generate))

    async def _native_whole(self, exchange: Exchange, asked: Generate, *, listed: bool) -> None:
        fault = await self._fault()
        with permit(self._core, fault):
            parameters = asked.parameters or GenerateParameters()
            job = self._jobs.native(asked, parameters, streams=False)
            if not await self._wait(exchange, job, fault):
                return
        body = tgi_frames.native_body(
            job,
            details=parameters.details or parameters.decoder_input_details,
            prefill=parameters.decoder_input_details,
            seed=parameters.seed,
            before=asked.inputs if parameters.return_full_text else "",
        )
        await exchange.json(200, [body] if listed else body, timings([job]))

    async def _native_stream(self, exchange: Exchange, asked: Generate) -> None:
        fault = await self._fault()
        await exchange.begin(200, _SSE)
        parameters = asked.parameters or GenerateParameters()
        try:
            with permit(self._core, fault):
                job = self._jobs.native(asked, parameters, streams=True)
                frames = tgi_frames.NativeFrames(
                    job,
                    details=parameters.details,
                    seed=parameters.seed,
                    before=asked.inputs if parameters.return_full_text else "",
                )
                await Play(self._core, exchange, job, fault).stream(frames)
        except Refusal as refusal:
            self._core.counts.failed[refusal.error_type] += 1
            await exchange.write(tgi_frames.stream_error(refusal.message, refusal.error_type))
        await exchange.end()

    # --- chat and completions ---

    async def _chat(self, exchange: Exchange) -> None:
        asked = await read(exchange, TgiChat)
        fault = await self._fault()
        if asked.stream:
            await self._chat_stream(exchange, asked, fault)
            return
        with permit(self._core, fault):
            job = self._jobs.chat(asked)
            if not await self._wait(exchange, job, fault):
                return
        body = tgi_frames.chat_body(job, self._echo(asked.model), logprobs=bool(asked.logprobs))
        await exchange.json(200, body, timings([job]))

    async def _chat_stream(self, exchange: Exchange, asked: TgiChat, fault: Fault | None) -> None:
        await exchange.begin(200, _SSE)
        try:
            with permit(self._core, fault):
                job = self._jobs.chat(asked)
                frames = tgi_frames.ChatFrames(
                    job,
                    self._echo(asked.model),
                    include_usage=bool(asked.stream_options and asked.stream_options.include_usage),
                    logprobs=bool(asked.logprobs),
                )
                if await Play(self._core, exchange, job, fault).stream(frames):
                    await exchange.write(frames.end())
        except Refusal as refusal:
            self._core.counts.failed[refusal.error_type] += 1
            await exchange.write(tgi_frames.chat_stream_error(refusal.message) + tgi_frames.DONE)
        await exchange.end()

    async def _completions(self, exchange: Exchange) -> None:
        asked = await read(exchange, TgiCompletion)
        prompts = [asked.prompt] if isinstance(asked.prompt, str) else asked.prompt
        fault = await self._fault()
        if len(prompts) > MAX_CLIENT_BATCH:
            raise Refusal(
                f"Number of prompts exceeds the maximum allowed batch size of {MAX_CLIENT_BATCH}",
                "validation",
            )
        if asked.stream:
            await self._completion_stream(exchange, asked, prompts, fault)
            return
        jobs = [self._jobs.completion(asked, prompt) for prompt in prompts]
        await asyncio.gather(*(self._wait_one(exchange, job, fault) for job in jobs))
        if not exchange.gone:
            body = tgi_frames.completion_body(jobs, self._echo(asked.model))
            await exchange.json(200, body, timings(jobs))

    async def _wait_one(self, exchange: Exchange, job: Job, fault: Fault | None) -> bool:
        with permit(self._core, fault):
            return await self._wait(exchange, job, fault)

    async def _completion_stream(
        self,
        exchange: Exchange,
        asked: TgiCompletion,
        prompts: Sequence[str],
        fault: Fault | None,
    ) -> None:
        await exchange.begin(200, _SSE)
        streams = (
            self._one_completion(exchange, asked, prompt, index, fault)
            for index, prompt in enumerate(prompts)
        )
        await asyncio.gather(*streams)
        await exchange.write(tgi_frames.DONE)
        await exchange.end()

    async def _one_completion(
        self, exchange: Exchange, asked: TgiCompletion, prompt: str, index: int, fault: Fault | None
    ) -> None:
        try:
            with permit(self._core, fault):
                job = self._jobs.completion(asked, prompt)
                frames = tgi_frames.CompletionFrames(job, self._echo(asked.model), index)
                await Play(self._core, exchange, job, fault).stream(frames)
        except Refusal as refusal:
            self._core.counts.failed[refusal.error_type] += 1
            await exchange.write(tgi_frames.chat_stream_error(refusal.message))

    # --- shared ---

    async def _fault(self) -> Fault | None:
        self._core.counts.requests += 1
        fault = self._core.faults.draw()
        if fault and fault.kind == "error":
            raise Refusal("Incomplete generation", "incomplete_generation")
        return fault

    async def _wait(self, exchange: Exchange, job: Job, fault: Fault | None) -> bool:
        try:
            return await Play(self._core, exchange, job, fault).whole()
        except Broken:
            message = "Request failed during generation: simulated failure"
            raise Refusal(message, "generation") from None

    def _echo(self, model: str | None) -> str:
        return self._model if model in {None, "tgi"} else str(model)
