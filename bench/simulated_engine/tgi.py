"""The routes of text-generation-inference 3.3.7, over the core."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from bench.simulated_engine import grammars, tgi_frames, tokens
from bench.simulated_engine.asked import (
    Generate,
    GenerateParameters,
    TgiChat,
    TgiCompletion,
    TgiGrammar,
)
from bench.simulated_engine.author import Turn
from bench.simulated_engine.core import Broken, Core, Overloaded
from bench.simulated_engine.exchange import Exchange
from bench.simulated_engine.faults import Fault
from bench.simulated_engine.jobs import Ask, Job
from bench.simulated_engine.tgi_checks import Invalid, Limits, check, new_tokens
from bench.simulated_engine.tgi_metrics import metrics

VERSION: Final = "3.3.6-dev0"
MAX_CLIENT_BATCH: Final = 4
OVERLOADED: Final = "Model is overloaded"
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
Body = TypeVar("Body", bound=BaseModel)


class Refusal(Exception):
    """An error of TGI's.

    Args:
        message: what it says.
        error_type: its kind.
    """

    def __init__(self, message: str, error_type: str) -> None:
        super().__init__(message)
        self.message = message
        self.error_type = error_type


class Unreadable(Exception):
    """A body that axum does not take: a status and plain text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


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
        await exchange.json(
            200,
            {
                "model_id": self._model,
                "model_sha": None,
                "model_pipeline_tag": "text-generation",
                "max_concurrent_requests": self._core.options.max_concurrent_requests,
                "max_best_of": 2,
                "max_stop_sequences": self._limits.max_stop,
                "max_input_tokens": self._limits.max_input_tokens,
                "max_total_tokens": self._limits.max_total_tokens,
                "validation_workers": 2,
                "max_client_batch_size": MAX_CLIENT_BATCH,
                "router": "text-generation-router",
                "version": VERSION,
                "sha": None,
                "docker_label": None,
            },
        )

    async def _models(self, exchange: Exchange) -> None:
        model = {"id": self._model, "object": "model", "created": 0, "owned_by": self._model}
        await exchange.json(200, {"object": "list", "data": [model]})

    async def _metrics(self, exchange: Exchange) -> None:
        await exchange.plain(200, metrics(self._core))

    async def _tokenize(self, exchange: Exchange) -> None:
        asked = await _read(exchange, Generate)
        await exchange.json(200, _simple_tokens(asked.inputs))

    async def _chat_tokenize(self, exchange: Exchange) -> None:
        asked = await _read(exchange, TgiChat)
        text = template(_turns(asked))
        answer = {"tokenize_response": _simple_tokens(text), "templated_text": text}
        await exchange.json(200, answer)

    # --- native ---

    async def _compatible(self, exchange: Exchange) -> None:
        asked = await _read(exchange, Generate)
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
        await self._native_whole(exchange, await _read(exchange, Generate), listed=False)

    async def _generate_stream(self, exchange: Exchange) -> None:
        await self._native_stream(exchange, await _read(exchange, Generate))

    async def _native_whole(self, exchange: Exchange, asked: Generate, *, listed: bool) -> None:
        fault = await self._fault()
        with self._permit(fault):
            parameters = asked.parameters or GenerateParameters()
            job = self._native_job(asked, parameters, streams=False)
            if not await self._wait(exchange, job, fault):
                return
        body = tgi_frames.native_body(
            job,
            details=parameters.details or parameters.decoder_input_details,
            prefill=parameters.decoder_input_details,
            seed=parameters.seed,
            before=asked.inputs if parameters.return_full_text else "",
        )
        await exchange.json(200, [body] if listed else body, self._timings([job]))

    async def _native_stream(self, exchange: Exchange, asked: Generate) -> None:
        fault = await self._fault()
        await exchange.begin(200, _SSE)
        parameters = asked.parameters or GenerateParameters()
        try:
            with self._permit(fault):
                job = self._native_job(asked, parameters, streams=True)
                frames = tgi_frames.NativeFrames(
                    job,
                    details=parameters.details,
                    seed=parameters.seed,
                    before=asked.inputs if parameters.return_full_text else "",
                )
                await self._core.play(exchange, job, frames, fault)
        except Refusal as refusal:
            self._core.counts.failed[refusal.error_type] += 1
            await exchange.write(tgi_frames.stream_error(refusal.message, refusal.error_type))
        await exchange.end()

    def _native_job(self, asked: Generate, parameters: GenerateParameters, *, streams: bool) -> Job:
        turn = Turn("user", asked.inputs)
        return self._job([turn], tokens.pieces(asked.inputs), parameters, streams=streams)

    # --- chat and completions ---

    async def _chat(self, exchange: Exchange) -> None:
        asked = await _read(exchange, TgiChat)
        fault = await self._fault()
        if asked.stream:
            await self._chat_stream(exchange, asked, fault)
            return
        with self._permit(fault):
            job = self._chat_job(asked)
            if not await self._wait(exchange, job, fault):
                return
        body = tgi_frames.chat_body(job, self._echo(asked.model), logprobs=bool(asked.logprobs))
        await exchange.json(200, body, self._timings([job]))

    async def _chat_stream(self, exchange: Exchange, asked: TgiChat, fault: Fault | None) -> None:
        await exchange.begin(200, _SSE)
        try:
            with self._permit(fault):
                job = self._chat_job(asked)
                frames = tgi_frames.ChatFrames(
                    job,
                    self._echo(asked.model),
                    include_usage=bool(asked.stream_options and asked.stream_options.include_usage),
                    logprobs=bool(asked.logprobs),
                )
                if await self._core.play(exchange, job, frames, fault):
                    await exchange.write(frames.end())
        except Refusal as refusal:
            self._core.counts.failed[refusal.error_type] += 1
            await exchange.write(tgi_frames.chat_stream_error(refusal.message) + tgi_frames.DONE)
        await exchange.end()

    def _chat_job(self, asked: TgiChat) -> Job:
        if asked.response_format and asked.tools is not None:
            raise Refusal("Tool error: Grammar and tools are mutually exclusive", "tool_error")
        if asked.tools:
            raise Refusal("Tool error: tools are not simulated", "tool_error")
        turns = _turns(asked)
        parameters = GenerateParameters(
            max_new_tokens=asked.max_tokens or asked.max_completion_tokens,
            do_sample=asked.temperature != 0,
            # On this route 0 means greedy.
            temperature=asked.temperature or None,
            top_p=asked.top_p,
            seed=asked.seed,
            stop=asked.stop or [],
            frequency_penalty=asked.frequency_penalty,
            grammar=asked.response_format,
            repetition_penalty=None
            if asked.presence_penalty is None
            else asked.presence_penalty + 2.0,
        )
        return self._job(turns, tokens.pieces(template(turns)), parameters, streams=asked.stream)

    async def _completions(self, exchange: Exchange) -> None:
        asked = await _read(exchange, TgiCompletion)
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
        jobs = [self._completion_job(asked, prompt) for prompt in prompts]
        await asyncio.gather(*(self._wait_one(exchange, job, fault) for job in jobs))
        if not exchange.gone:
            body = tgi_frames.completion_body(jobs, self._echo(asked.model))
            await exchange.json(200, body, self._timings(jobs))

    async def _wait_one(self, exchange: Exchange, job: Job, fault: Fault | None) -> bool:
        with self._permit(fault):
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
            with self._permit(fault):
                job = self._completion_job(asked, prompt)
                frames = tgi_frames.CompletionFrames(job, self._echo(asked.model), index)
                await self._core.play(exchange, job, frames, fault)
        except Refusal as refusal:
            self._core.counts.failed[refusal.error_type] += 1
            await exchange.write(tgi_frames.chat_stream_error(refusal.message))

    def _completion_job(self, asked: TgiCompletion, prompt: str) -> Job:
        parameters = GenerateParameters(
            max_new_tokens=asked.max_tokens,
            temperature=asked.temperature or None,
            top_p=asked.top_p,
            seed=asked.seed,
            stop=asked.stop or [],
        )
        turn = Turn("user", prompt)
        return self._job([turn], tokens.pieces(prompt), parameters, streams=asked.stream)

    # --- shared ---

    async def _fault(self) -> Fault | None:
        self._core.counts.requests += 1
        fault = self._core.faults.draw()
        if fault and fault.kind == "error":
            raise Refusal("Incomplete generation", "incomplete_generation")
        return fault

    def _permit(self, fault: Fault | None) -> _Permit:
        return _Permit(self._core, fault)

    def _job(
        self,
        turns: Sequence[Turn],
        prompt: Sequence[str],
        parameters: GenerateParameters,
        *,
        streams: bool,
    ) -> Job:
        inputs = "".join(prompt)
        try:
            check(parameters, inputs, self._limits, streams=streams)
            if parameters.truncate:
                prompt = prompt[-parameters.truncate :]
            limit = new_tokens(len(prompt), parameters.max_new_tokens, self._limits)
            constraint = _constraint(parameters.grammar)
        except Invalid as invalid:
            raise Refusal(f"Input validation error: {invalid}", "validation") from None
        ask = Ask(
            turns=turns,
            prompt=prompt,
            max_new_tokens=limit,
            stop=parameters.stop,
            seed=parameters.seed,
            constraint=constraint,
        )
        return self._core.compose(ask)

    async def _wait(self, exchange: Exchange, job: Job, fault: Fault | None) -> bool:
        try:
            return await self._core.wait(exchange, job, fault)
        except Broken:
            message = "Request failed during generation: simulated failure"
            raise Refusal(message, "generation") from None

    def _echo(self, model: str | None) -> str:
        return self._model if model in {None, "tgi"} else str(model)

    def _timings(self, jobs: Sequence[Job]) -> list[tuple[bytes, bytes]]:
        first = min(job.sequence.arrived_s for job in jobs)
        last = max(job.sequence.ended_s or 0.0 for job in jobs)
        queued_s = max((job.sequence.admitted_s or first) - first for job in jobs)
        generated = sum(job.sequence.generated for job in jobs)
        inference_ms = (last - first - queued_s) * 1000
        told = {
            "x-compute-type": "gpu+optimized",
            "x-compute-time": f"{last - first:.6f}",
            "x-compute-characters": sum(len("".join(job.ask.prompt)) for job in jobs),
            "x-total-time": round((last - first) * 1000),
            "x-validation-time": 0,
            "x-queue-time": round(queued_s * 1000),
            "x-inference-time": round(inference_ms),
            "x-time-per-token": round(inference_ms / generated),
            "x-prompt-tokens": sum(job.prompt_tokens for job in jobs),
            "x-generated-tokens": generated,
        }
        return [(name.encode(), str(value).encode()) for name, value in told.items()]


class _Permit:
    """One of TGI's permits, held within a block."""

    def __init__(self, core: Core, fault: Fault | None) -> None:
        refused = fault is not None and fault.kind == "refuse"
        self._permit = core.permit(0 if refused else core.options.max_concurrent_requests)

    def __enter__(self) -> None:
        try:
            self._permit.__enter__()
        except Overloaded:
            raise Refusal(OVERLOADED, "overloaded") from None

    def __exit__(self, *what: object) -> None:
        self._permit.__exit__(None, None, None)


def template(turns: Sequence[Turn]) -> str:
    """Return the chat as one text, in a form like Llama 3's."""
    parts = [f"<|{turn.role}|>\n{turn.content}<|end|>\n" for turn in turns]
    return "".join([*parts, "<|assistant|>\n"])


def _turns(asked: TgiChat) -> list[Turn]:
    if not asked.messages:
        raise Refusal("Template error: no messages", "validation")
    return [Turn(message.role, message.text) for message in asked.messages]


def _simple_tokens(text: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    start = 0
    for piece in tokens.pieces(text):
        stop = start + len(piece)
        found.append({"id": tokens.token_id(piece), "text": piece, "start": start, "stop": stop})
        start = stop
    return found


def _constraint(grammar: TgiGrammar | None) -> grammars.Constraint | None:
    if grammar is None:
        return None
    try:
        if grammar.type == "regex":
            return grammars.regex(grammar.value)
        schema = grammar.value
        if grammar.type == "json_schema":
            schema = schema.get("schema") if isinstance(schema, dict) else None
        return grammars.json_schema(schema, needs_properties=True)
    except grammars.Unsupported as unsupported:
        raise Invalid(f"grammar is not valid: {unsupported}") from None


async def _read(exchange: Exchange, kind: type[Body]) -> Body:
    """Return the body.

    Raises:
        Unreadable: axum would not take it.
    """
    content_type = exchange.headers.get(b"content-type", b"").lower()
    body = await exchange.body()
    if not content_type.startswith(b"application/json"):
        raise Unreadable(415, "Expected request with `Content-Type: application/json`")
    try:
        parsed = json.loads(body)
    except ValueError as error:
        raise Unreadable(400, f"Failed to parse the request body as JSON: {error}") from None
    try:
        return kind.model_validate(parsed)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        text = "Failed to deserialize the JSON body into the target type"
        raise Unreadable(422, f"{text}: {where}: {first['msg']}") from None
