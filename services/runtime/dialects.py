"""What differs between engine families, in one table. Pure.

Nothing outside of this module compares the name of a family. Sources: TGI 3.3.7 (router), the
README of llama.cpp's server, and the API references of vLLM (`structured_outputs` since 0.11, the
`guided_*` fields are gone since 0.12) and SGLang (`regex`, `priority`, `continue_final_message`).
Which family answers at a URL is found out by :mod:`services.runtime.probing`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from services.runtime.calls import ChatCall, Grammar

Fields = dict[str, Any]
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Mark:
    """What tells a family: a JSON object at `path`, with `field`.

    Args:
        path: of the route that only this family has.
        field: that is in its answer.
        model: fields of the answer that may name the model, best first.
    """

    path: str
    field: str
    model: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Gauges:
    """Names of a family's metrics at `/metrics`; empty where it has none.

    Args:
        queued: gauge of the requests that wait.
        running: gauge of the requests that are decoded.
        cache_hits: counter of the prompt tokens that were found in the prefix cache.
        cache_queries: counter of the prompt tokens that were looked for.
    """

    queued: str = ""
    running: str = ""
    cache_hits: str = ""
    cache_queries: str = ""


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one engine family wants to be spoken to.

    Args:
        name: of the family.
        model: what to send as `model`. TGI takes anything but "tgi" for an adapter.
        served_model: the model behind it, where the engine tells; for reports.
        mark: the route by which it is known; None if only `/v1/models` may tell.
        owned_by: what `/v1/models` says of its models.
        grammar_form: the form of grammar that it takes; None if it takes none.
        grammar: the fields that constrain the reply, if it takes a grammar.
        max_grammar_tokens: most tokens of a reply that it constrains as a whole; None if any
            number. (TGI runs longer ones in pieces, and begins the grammar anew with each.)
        continuation: fields by which a last message of the assistant is gone on with, not
            answered; empty if that needs no field; None if the family cannot.
        repetition_field: the field of the repetition penalty, if there is one.
        priority_field: the field of a call's priority, if there is one. (vLLM takes lower
            numbers first, SGLang by default higher ones; both only if started for it.)
        max_stop: how many stop texts it takes; None if any number.
        top_p_below_one: whether it refuses `top_p = 1`; then 1, which is its default, is
            left out. (Temperature 0 is greedy in all of them, and is always sent.)
        cached_tokens: where the last event says how many prompt tokens were cached.
        overloaded: words (a regex) of its refusals at its limit, beside status 429.
        too_long: words (a regex) of its refusals of a prompt that does not fit.
        gauges: names of its metrics.
        always: fields of every call.
    """

    name: str
    model: str = "default"
    served_model: str = ""
    mark: Mark | None = None
    owned_by: str | None = None
    grammar_form: Literal["regex", "gbnf"] | None = None
    grammar: Callable[[Grammar], Fields] | None = None
    max_grammar_tokens: int | None = None
    continuation: Json | None = None
    repetition_field: str | None = None
    priority_field: str | None = None
    max_stop: int | None = None
    top_p_below_one: bool = False
    cached_tokens: tuple[tuple[str, ...], ...] = (
        ("usage", "prompt_tokens_details", "cached_tokens"),
    )
    overloaded: str = "at capacity"
    too_long: str = "context_length_exceeded"
    gauges: Gauges = Gauges()
    always: Json = field(default_factory=dict)


_GO_ON: Final = {"continue_final_message": True, "add_generation_prompt": False}

TGI: Final = Dialect(
    name="tgi",
    model="tgi",
    mark=Mark("/info", "model_id", ("model_id",)),
    grammar_form="regex",
    grammar=lambda grammar: {"response_format": {"type": "regex", "value": grammar.regex}},
    max_grammar_tokens=1024,
    continuation={},
    max_stop=4,
    top_p_below_one=True,
    overloaded="Model is overloaded",
    too_long=(
        r"must have less than \d+ tokens|`inputs` tokens \+ `max_new_tokens` must be"
        r"|`truncate` must be"
    ),
    gauges=Gauges(queued="tgi_queue_size", running="tgi_batch_current_size"),
)
VLLM: Final = Dialect(
    name="vllm",
    owned_by="vllm",
    grammar_form="regex",
    grammar=lambda grammar: {"structured_outputs": {"regex": grammar.regex}},
    continuation=_GO_ON,
    repetition_field="repetition_penalty",
    priority_field="priority",
    overloaded="too many requests|server is overloaded",
    too_long="maximum context length|longer than the maximum model length",
    gauges=Gauges(
        queued="vllm:num_requests_waiting",
        running="vllm:num_requests_running",
        cache_hits="vllm:prefix_cache_hits_total",
        cache_queries="vllm:prefix_cache_queries_total",
    ),
)
SGLANG: Final = Dialect(
    name="sglang",
    owned_by="sglang",
    grammar_form="regex",
    grammar=lambda grammar: {"regex": grammar.regex},
    continuation={"continue_final_message": True},
    repetition_field="repetition_penalty",
    priority_field="priority",
    overloaded="queue is full|aborted by a higher priority",
    too_long="longer than the model's context length|maximum allowed length",
    gauges=Gauges(
        queued="sglang:num_queue_reqs",
        running="sglang:num_running_reqs",
        cache_hits="sglang:cached_tokens_total",
        cache_queries="sglang:prompt_tokens_total",
    ),
)
LLAMACPP: Final = Dialect(
    name="llamacpp",
    mark=Mark("/props", "default_generation_settings", ("model_alias", "model_path")),
    owned_by="llamacpp",
    grammar_form="gbnf",
    grammar=lambda grammar: {"grammar": grammar.gbnf},
    continuation={},
    repetition_field="repeat_penalty",
    cached_tokens=(
        ("usage", "prompt_tokens_details", "cached_tokens"),
        ("timings", "cache_n"),
    ),
    overloaded="no slot available",
    too_long="exceeds the available context size|exceed_context_size_error",
    gauges=Gauges(queued="llamacpp:requests_deferred", running="llamacpp:requests_processing"),
    always={"cache_prompt": True},
)
PLAIN: Final = Dialect(name="plain", max_stop=4)

DIALECTS: Final[Mapping[str, Dialect]] = {
    dialect.name: dialect for dialect in (TGI, VLLM, SGLANG, LLAMACPP, PLAIN)
}


def parameters(
    call: ChatCall, dialect: Dialect, *, model: str | None = None, constrained: bool = True
) -> Fields:
    """Return the arguments of huggingface_hub's `chat_completion` for `call`.

    Args:
        call: what is asked.
        dialect: of the engine that is asked.
        model: name to send instead of the dialect's.
        constrained: whether to send the call's grammar.
    """
    return {
        "messages": [{"role": turn.role, "content": turn.content} for turn in call.messages],
        "model": model or dialect.model,
        "max_tokens": call.max_tokens,
        "temperature": call.temperature,
        "top_p": _top_p(call, dialect),
        "seed": call.seed,
        "stop": list(call.stop[: dialect.max_stop]) or None,
        "stream": True,
        "stream_options": {"include_usage": True},
        "extra_body": _extra(call, dialect, constrained=constrained),
    }


def can_constrain(call: ChatCall, dialect: Dialect) -> bool:
    """Return whether the family takes a grammar for a reply as long as that of `call`."""
    most = dialect.max_grammar_tokens
    return dialect.grammar is not None and (most is None or call.max_tokens <= most)


def _top_p(call: ChatCall, dialect: Dialect) -> float | None:
    refused = dialect.top_p_below_one and call.top_p is not None and call.top_p >= 1
    return None if refused else call.top_p


def _extra(call: ChatCall, dialect: Dialect, *, constrained: bool) -> Fields:
    extra: Fields = dict(dialect.always)
    if call.grammar and dialect.grammar and constrained and can_constrain(call, dialect):
        extra |= dialect.grammar(call.grammar)
    if call.messages and call.messages[-1].role == "assistant" and dialect.continuation:
        extra |= dialect.continuation
    if call.repetition_penalty is not None and dialect.repetition_field:
        extra[dialect.repetition_field] = call.repetition_penalty
    if call.priority is not None and dialect.priority_field:
        extra[dialect.priority_field] = call.priority
    return extra


def cached_tokens(dialect: Dialect, event: Json) -> int | None:
    """Return how many prompt tokens `event` says were cached, or None if it does not say."""
    for path in dialect.cached_tokens:
        found: object = event
        for step in path:
            found = found.get(step) if isinstance(found, Mapping) else None
        if isinstance(found, int):
            return found
    return None
