"""What differs between engine families, in one table; and which of them answers at a URL.

Sources: TGI 3.3.7 (router), llama.cpp server, the API references of vLLM (`structured_outputs`
since 0.11, the `guided_*` fields are gone since 0.12) and SGLang (`regex`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, Final

import httpx2

from proto.errors import EngineRejected, EngineUnavailable
from services.runtime.calls import ChatCall, Grammar

Fields = dict[str, Any]
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one engine family wants to be spoken to.

    Args:
        name: of the family.
        model: what to send as `model`. TGI takes anything but "tgi" for an adapter.
        served_model: the model behind it, where the engine tells; for reports.
        grammar: the fields that constrain the reply; None if the family knows no grammar.
        repetition_field: the field of the repetition penalty, if there is one.
        max_stop: how many stop texts it takes; None if any number.
        top_p_below_one: whether it refuses `top_p = 1`; then 1, which is its default, is
            left out. (Temperature 0 is greedy in all of them, and is always sent.)
        cached_tokens: where the last event says how many prompt tokens were cached.
        always: fields of every call.
    """

    name: str
    model: str
    served_model: str = ""
    grammar: Callable[[Grammar], Fields] | None = None
    repetition_field: str | None = None
    max_stop: int | None = None
    top_p_below_one: bool = False
    cached_tokens: tuple[tuple[str, ...], ...] = (
        ("usage", "prompt_tokens_details", "cached_tokens"),
    )
    always: Json = field(default_factory=dict)


TGI: Final = Dialect(
    name="tgi",
    model="tgi",
    grammar=lambda grammar: {"response_format": {"type": "regex", "value": grammar.regex}},
    max_stop=4,
    top_p_below_one=True,
)
VLLM: Final = Dialect(
    name="vllm",
    model="default",
    grammar=lambda grammar: {"structured_outputs": {"regex": grammar.regex}},
    repetition_field="repetition_penalty",
)
SGLANG: Final = Dialect(
    name="sglang",
    model="default",
    grammar=lambda grammar: {"regex": grammar.regex},
    repetition_field="repetition_penalty",
)
LLAMACPP: Final = Dialect(
    name="llamacpp",
    model="default",
    grammar=lambda grammar: {"grammar": grammar.gbnf},
    repetition_field="repeat_penalty",
    cached_tokens=(
        ("usage", "prompt_tokens_details", "cached_tokens"),
        ("timings", "cache_n"),
    ),
    always={"cache_prompt": True},
)
PLAIN: Final = Dialect(name="plain", model="default", max_stop=4)

DIALECTS: Final[Mapping[str, Dialect]] = {
    dialect.name: dialect for dialect in (TGI, VLLM, SGLANG, LLAMACPP, PLAIN)
}


def parameters(call: ChatCall, dialect: Dialect, *, model: str | None = None) -> Fields:
    """Return the arguments of huggingface_hub's `chat_completion` for `call`.

    Args:
        call: what is asked.
        dialect: of the engine that is asked.
        model: name to send instead of the dialect's.
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
        "extra_body": _extra(call, dialect),
    }


def _top_p(call: ChatCall, dialect: Dialect) -> float | None:
    refused = dialect.top_p_below_one and call.top_p is not None and call.top_p >= 1
    return None if refused else call.top_p


def _extra(call: ChatCall, dialect: Dialect) -> Fields:
    extra: Fields = dict(dialect.always)
    if call.grammar and dialect.grammar:
        extra |= dialect.grammar(call.grammar)
    if call.repetition_penalty is not None and dialect.repetition_field:
        extra[dialect.repetition_field] = call.repetition_penalty
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


async def probe(url: str, http: httpx2.AsyncClient) -> Dialect:
    """Return the dialect of the engine at `url` (without `/v1`), its model names filled in.

    Raises:
        EngineUnavailable: it is still loading.
        EngineRejected: it wants another key.
        httpx2.HTTPError: it cannot be reached.
    """
    props = await _get(f"{url}/props", http)
    if props is not None and "default_generation_settings" in props:
        return replace(LLAMACPP, served_model=_llamacpp_model(props))
    info = await _get(f"{url}/info", http)
    if info is not None and "model_id" in info:
        return replace(TGI, served_model=str(info["model_id"]))
    return _from_models(await _get(f"{url}/v1/models", http) or {})


def _llamacpp_model(props: Json) -> str:
    alias = props.get("model_alias")
    return PurePath(str(alias or props.get("model_path") or "")).name


def _from_models(listed: Json) -> Dialect:
    data = listed.get("data")
    first = data[0] if isinstance(data, list) and data else None
    if not isinstance(first, Mapping):
        return PLAIN
    family = {"vllm": VLLM, "sglang": SGLANG, "llamacpp": LLAMACPP}
    model = str(first.get("id") or PLAIN.model)
    return replace(family.get(str(first.get("owned_by")), PLAIN), model=model, served_model=model)


async def _get(url: str, http: httpx2.AsyncClient) -> Json | None:
    """Return the JSON object at `url`; None if there is none."""
    reply = await http.get(url)
    if reply.status_code in {401, 403}:
        raise EngineRejected(f"{url}: HTTP {reply.status_code}")
    if reply.status_code in {502, 503, 504}:
        raise EngineUnavailable(f"{url}: HTTP {reply.status_code}")
    if reply.status_code != httpx2.codes.OK:
        return None
    try:
        body = reply.json()
    except ValueError:
        return None
    return body if isinstance(body, dict) else None
