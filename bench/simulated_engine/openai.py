"""The routes of vLLM, and what SGLang and llama.cpp do otherwise, over the core."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Final

import orjson
from pydantic import ValidationError

from bench.simulated_engine import grammars, tokens
from bench.simulated_engine.asked import VllmChat
from bench.simulated_engine.author import Turn
from bench.simulated_engine.core import Core
from bench.simulated_engine.counts import Labels, Text
from bench.simulated_engine.exchange import Exchange
from bench.simulated_engine.faults import Fault
from bench.simulated_engine.jobs import Ask, Job
from bench.simulated_engine.openai_frames import OpenAiFrames, Told, chat_body, error
from bench.simulated_engine.plays import Broken, Play
from bench.simulated_engine.tgi_jobs import template
from bench.simulated_engine.tgi_metrics import add_simulation

VERSION: Final = "0.32.0"
_SSE: Final = ((b"content-type", b"text/event-stream; charset=utf-8"),)
Route = Callable[[Exchange], Awaitable[None]]


class Refusal(Exception):
    """An error of the engine's.

    Args:
        status: of the answer.
        kind: OpenAI's `type`.
        message: what it says.
    """

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message


class OpenAi:
    """The routes.

    Args:
        core: the engine.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._model = core.options.model_name
        self._family = core.options.family
        self._numbers = itertools.count(1)
        self.routes: dict[tuple[str, str], Route] = {
            ("GET", "/health"): self._health,
            ("GET", "/ping"): self._health,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/chat/completions"): self._chat,
            **self._routes_of_family(),
        }

    async def answer(self, exchange: Exchange) -> None:
        """Answer a request."""
        route = self.routes.get((exchange.method, exchange.path))
        if route is None:
            await exchange.json(404, {"detail": "Not Found"})
        elif exchange.path.startswith("/v1") and not self._may(exchange):
            await exchange.json(401, {"error": "Unauthorized"})
        else:
            try:
                await route(exchange)
            except Refusal as refusal:
                kind = "validation" if refusal.status < 429 else "generation"
                self._core.counts.failed[kind] += 1
                body = error(refusal.message, refusal.kind, refusal.status)
                await exchange.json(refusal.status, body)

    def _routes_of_family(self) -> dict[tuple[str, str], Route]:
        if self._family == "sglang":
            return {
                ("GET", "/get_model_info"): self._sglang_model,
                ("GET", "/model_info"): self._sglang_model,
                ("GET", "/get_server_info"): self._sglang_server,
                ("GET", "/server_info"): self._sglang_server,
            }
        if self._family == "llamacpp":
            return {("GET", "/props"): self._props, ("GET", "/slots"): self._slots}
        return {("GET", "/version"): self._version}

    def _may(self, exchange: Exchange) -> bool:
        key = self._core.options.api_key
        told = exchange.headers.get(b"authorization", b"").decode("latin-1")
        return not key or told == f"Bearer {key}"

    # --- what needs no generation ---

    async def _health(self, exchange: Exchange) -> None:
        if self._family == "llamacpp" and self._core.healthy:
            await exchange.json(200, {"status": "ok"})
        else:
            await exchange.whole(200 if self._core.healthy else 503, b"")

    async def _version(self, exchange: Exchange) -> None:
        await exchange.json(200, {"version": VERSION})

    async def _models(self, exchange: Exchange) -> None:
        model = {
            "id": self._model,
            "object": "model",
            "created": 0,
            "owned_by": self._family,
            "root": self._model,
            "parent": None,
            "max_model_len": self._core.options.profile.max_total_tokens,
        }
        await exchange.json(200, {"object": "list", "data": [model]})

    async def _sglang_model(self, exchange: Exchange) -> None:
        await exchange.json(200, {"model_path": self._model, "is_generation": True})

    async def _sglang_server(self, exchange: Exchange) -> None:
        most = self._core.options.profile.kv_tokens
        told = {"model_path": self._model, "max_total_num_tokens": most, "version": "0.5"}
        await exchange.json(200, told)

    async def _props(self, exchange: Exchange) -> None:
        profile = self._core.options.profile
        settings = {"n_ctx": profile.max_total_tokens}
        told = {
            "default_generation_settings": settings,
            "total_slots": profile.max_batch,
            "model_path": self._model,
            "model_alias": self._model,
        }
        await exchange.json(200, told)

    async def _slots(self, exchange: Exchange) -> None:
        running = self._core.batch.running
        await exchange.json(200, [{"id": n, "is_processing": True} for n in range(len(running))])

    async def _metrics(self, exchange: Exchange) -> None:
        await exchange.plain(200, metrics(self._core))

    # --- chat ---

    async def _chat(self, exchange: Exchange) -> None:
        asked = await _read(exchange)
        self._core.counts.requests += 1
        fault = self._core.faults.draw()
        if fault and fault.kind == "refuse":
            raise Refusal(429, "TooManyRequestsError", "The engine is overloaded")
        if fault and fault.kind == "error":
            raise Refusal(500, "InternalServerError", "simulated failure")
        if asked.model not in {None, "", self._model, *self._any_model()}:
            message = f"The model `{asked.model}` does not exist."
            raise Refusal(404, "NotFoundError", message)
        job = self._core.compose(self._ask(asked))
        told = Told(
            number=next(self._numbers),
            model=self._model,
            family=self._family,
            include_usage=bool(asked.stream_options and asked.stream_options.include_usage),
            cached=self._core.options.tells_cached_tokens,
            logprobs=bool(asked.logprobs),
        )
        with self._core.permit(None):
            await self._give(exchange, asked, job, told, fault)

    def _any_model(self) -> set[str | None]:
        """llama.cpp and SGLang answer to any name."""
        return set() if self._family == "vllm" else {self._family, "default", "tgi", "dummy"}

    async def _give(
        self, exchange: Exchange, asked: VllmChat, job: Job, told: Told, fault: Fault | None
    ) -> None:
        if not asked.stream:
            try:
                whole = await Play(self._core, exchange, job, fault).whole()
            except Broken:
                raise Refusal(500, "InternalServerError", "simulated failure") from None
            if whole:
                await exchange.json(200, chat_body(job, told))
            return
        await exchange.begin(200, _SSE)
        frames = OpenAiFrames(job, told)
        if await Play(self._core, exchange, job, fault).stream(frames):
            await exchange.write(frames.end())
        await exchange.end()

    def _ask(self, asked: VllmChat) -> Ask:
        turns = [Turn(message.role, message.text) for message in asked.messages]
        prompt = tokens.pieces(template(turns))
        limit = self._limit(asked, len(prompt))
        stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
        if asked.top_p is not None and not 0 < asked.top_p <= 1:
            raise _bad(f"top_p must be in (0, 1], got {asked.top_p}.")
        if asked.temperature is not None and asked.temperature < 0:
            raise _bad(f"temperature must be non-negative, got {asked.temperature}.")
        return Ask(
            turns=turns,
            prompt=prompt,
            max_new_tokens=limit,
            stop=stop,
            keeps_stop=False,
            seed=asked.seed,
            constraint=_constraint(asked),
            priority=asked.priority,
            ignore_eos=asked.ignore_eos,
        )

    def _limit(self, asked: VllmChat, prompt_tokens: int) -> int:
        most = self._core.options.profile.max_total_tokens
        limit = asked.max_completion_tokens or asked.max_tokens
        limit = self._core.options.default_max_tokens if limit is None else limit
        limit = most - prompt_tokens if limit is None else limit
        if limit < 1 and prompt_tokens < most:
            raise _bad(f"max_tokens must be at least 1, got {limit}.")
        if prompt_tokens + limit > most or prompt_tokens >= most:
            raise _bad(
                f"This model's maximum context length is {most} tokens. However, you requested "
                f"{limit} output tokens and your prompt contains {prompt_tokens} input tokens."
            )
        return limit


def _bad(message: str) -> Refusal:
    return Refusal(400, "BadRequestError", message)


def _constraint(asked: VllmChat) -> grammars.Constraint | None:
    wanted = asked.structured_outputs
    schema = asked.guided_json
    pattern = asked.guided_regex or asked.regex
    choice = asked.guided_choice
    if wanted:
        pattern, schema, choice = wanted.regex, wanted.json_, wanted.choice
    if asked.response_format and asked.response_format.type == "json_schema":
        schema = (asked.response_format.json_schema or {}).get("schema")
    if asked.response_format and asked.response_format.type == "json_object":
        schema = {"type": "object", "properties": {}}
    try:
        if pattern is not None:
            return grammars.regex(pattern)
        if choice is not None:
            return grammars.choice(choice)
        if schema is not None:
            return grammars.json_schema(schema, needs_properties=False)
    except grammars.Unsupported as unsupported:
        raise _bad(str(unsupported)) from None
    return None


async def _read(exchange: Exchange) -> VllmChat:
    try:
        return VllmChat.model_validate(orjson.loads(await exchange.body()))
    except ValidationError as invalid:
        raise _bad(str(invalid.errors(include_url=False, include_context=False))) from None
    except ValueError as invalid:
        raise _bad(f"JSON decode error: {invalid}") from None


def metrics(core: Core) -> str:
    """Return the page, under vLLM's names."""
    labels: Labels = (("model_name", core.options.model_name), ("engine", "0"))
    text = Text(labels)
    counts, batch = core.counts, core.batch
    text.one("gauge", "vllm:num_requests_running", len(batch.running))
    text.one("gauge", "vllm:num_requests_waiting", sum(not one.gone for one in batch.queue))
    text.one("gauge", "vllm:kv_cache_usage_perc", batch.kv.held / batch.kv.blocks)
    text.one("counter", "vllm:prefix_cache_queries_total", batch.queried_tokens)
    text.one("counter", "vllm:prefix_cache_hits_total", batch.hit_tokens)
    text.one("counter", "vllm:prompt_tokens_total", counts.prompt_tokens)
    text.one("counter", "vllm:generation_tokens_total", counts.generated_tokens)
    text.one("counter", "vllm:num_preemptions_total", counts.preemptions)
    ended: dict[Labels, float] = {}
    for reason, number in (
        ("length", counts.ended["length"]),
        ("stop", counts.ended["eos"] + counts.ended["stop"]),
        ("abort", counts.failed["dropped"]),
    ):
        ended[(("finished_reason", reason),)] = number
    text.many("counter", "vllm:request_success_total", ended)
    text.histogram("vllm:e2e_request_latency_seconds", counts.seconds["total"])
    text.histogram("vllm:time_to_first_token_seconds", counts.seconds["first_token"])
    text.histogram("vllm:request_queue_time_seconds", counts.seconds["queue"])
    text.histogram("vllm:request_inference_time_seconds", counts.seconds["inference"])
    add_simulation(text, core)
    return str(text)
