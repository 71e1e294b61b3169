"""The simulated engine's answers have the form of TGI's, as TGI's own tests recorded them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from tests.simulated import simulated_engine

Json = dict[str, Any]
DATA: Final = Path(__file__).parents[2].parent / "shared/data/tgi"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="TGI's recorded bodies are not here")

ASK: Final = [{"role": "user", "content": "Why?"}]
USAGE: Final = {"stream_options": {"include_usage": True}}
SCHEMA: Final = {
    "type": "object",
    "properties": {"firstName": {"type": "string"}, "numCats": {"type": "integer"}},
}
FORMAT: Final = {"type": "json_object", "value": SCHEMA}
JSON_SCHEMA: Final = {"type": "json_schema", "value": {"name": "person", "schema": SCHEMA}}
TEN: Final = {"max_new_tokens": 10, "decoder_input_details": False, "details": True}


def chat(**more: Any) -> Json:
    return {"messages": ASK, "model": "tgi", **more}


def generate(inputs: str = "Test request", **more: Any) -> Json:
    return {"inputs": inputs, "parameters": TEN | more}


CHAT, COMPLETIONS, GENERATE = "/v1/chat/completions", "/v1/completions", "/generate"
REGEX: Final = {"type": "regex", "value": r"\d{3,6}@\w+\.com"}
#: Each recorded body with the request that gets its like.
CASES: Final[dict[str, tuple[str, Json]]] = {
    "test_chat_llama/test_flash_llama_simple": (CHAT, chat(max_tokens=100)),
    "test_completion_prompts/test_flash_llama_completion_single_prompt": (
        COMPLETIONS, {"prompt": "What is Deep Learning?", "max_tokens": 10},
    ),
    "test_completion_prompts/test_flash_llama_completion_many_prompts": (
        COMPLETIONS, {"prompt": ["a", "b", "c", "d"], "max_tokens": 10},
    ),
    "test_completion_prompts/test_flash_llama_completion_many_prompts_stream": (
        COMPLETIONS, {"prompt": ["a", "b", "c", "d"], "max_tokens": 10, "stream": True},
    ),
    "test_completion_prompts/test_flash_llama_completion_stream_usage": (
        CHAT, chat(max_tokens=10, stream=True, **USAGE),
    ),
    "test_completion_prompts/test_chat_openai_usage": (
        CHAT, chat(messages=[{"role": "user", "content": "Say OK!"}], stream=True, **USAGE),
    ),
    "test_completion_prompts/test_chat_openai_nousage": (
        CHAT, chat(messages=[{"role": "user", "content": "Say OK!"}], stream=True),
    ),
    "test_completion_prompts/test_chat_hfhub_usage": (
        CHAT, chat(messages=[{"role": "user", "content": "Say OK!"}], stream=True, **USAGE),
    ),
    "test_completion_prompts/test_chat_hfhub_nousage": (
        CHAT, chat(messages=[{"role": "user", "content": "Say OK!"}], stream=True),
    ),
    "test_flash_llama/test_flash_llama_simple": (GENERATE, generate()),
    "test_flash_llama/test_flash_llama_all_params": (
        GENERATE,
        generate("stops", stop=["test"], return_full_text=True, seed=0, temperature=0.5),
    ),
    "test_flash_grammar_llama/test_flash_llama_grammar": (GENERATE, generate()),
    "test_flash_grammar_llama/test_flash_llama_grammar_regex": (
        GENERATE, generate(grammar={"type": "regex", "value": r"(\d+\.){3}\d{20}"}),
    ),
    "test_flash_grammar_llama/test_flash_llama_grammar_json": (
        GENERATE, generate(max_new_tokens=100, grammar={"type": "json", "value": SCHEMA}),
    ),
    "test_flash_grammar_llama/test_flash_llama_grammar_single_load_instance": (
        GENERATE, generate(grammar={"type": "regex", "value": r"\d{60}"}),
    ),
    **{
        f"test_grammar_response_format_llama/test_grammar_response_format_llama_json{number}": (
            CHAT, chat(max_tokens=500, response_format=FORMAT),
        )
        for number in ("", ".1", ".2")
    },
    **{
        f"test_json_schema_constrain/test_json_schema_{name}": (
            CHAT, chat(max_tokens=500, response_format=JSON_SCHEMA),
        )
        for name in ("basic", "complex")
    },
    "test_json_schema_constrain/test_json_schema_stream": (
        CHAT, chat(max_tokens=500, response_format=JSON_SCHEMA, stream=True),
    ),
}  # fmt: skip
LOADS: Final[dict[str, Json]] = {
    "test_flash_llama/test_flash_llama_load": generate(),
    "test_flash_grammar_llama/test_flash_llama_grammar_load": generate(
        grammar={"type": "regex", "value": r"\d{60}"}
    ),
}
REPLIES: Final = [
    {"match": "OK!", "reply": "OK!"},
    {"match": "stops", "reply": " failed: Error in test"},
]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    file = tmp_path_factory.mktemp("simulated") / "replies.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in REPLIES))
    with simulated_engine("--replies", str(file)) as engine:
        yield engine.url


@pytest.fixture
async def engine(url: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=url, timeout=20, trust_env=False) as client:
        yield client


def recorded(name: str) -> Any:
    return json.loads((DATA / f"{name}.json").read_text("utf-8"))


async def answer(client: httpx2.AsyncClient, path: str, body: Json) -> Any:
    reply = await client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    if not body.get("stream"):
        return reply.json()
    lines = [line for line in reply.text.split("\n\n") if line]
    assert lines.pop() == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def differences(ours: Any, theirs: Any, where: str = "$") -> Iterator[str]:
    """Where the two differ in form. A key that one lacks is as good as null there: the client
    that recorded has added fields of its own."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in ours.keys() | theirs.keys():
            yield from differences(ours.get(key), theirs.get(key), f"{where}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list):
        # Of lists the first elements: their lengths are the model's choice.
        yield from (d for a, b in zip(ours[:1], theirs[:1], strict=False)
                    for d in differences(a, b, f"{where}[]"))  # fmt: skip
    elif kind(ours) != kind(theirs):
        yield f"{where}: {ours!r}, recorded {theirs!r}"


def kind(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return str(type(value))
    return "number" if isinstance(value, int | float) else type(value).__name__


def outline(chunk: Json) -> tuple[object, ...]:
    """What must be the same for a chunk at its place: choices, reason, usage."""
    reasons = [choice["finish_reason"] for choice in chunk["choices"]]
    return (chunk["object"], reasons, chunk["usage"] is None)


@pytest.mark.parametrize("name", sorted(CASES))
async def test_answers_have_the_recorded_form(engine: httpx2.AsyncClient, name: str) -> None:
    path, body = CASES[name]
    ours, theirs = await answer(engine, path, body), recorded(name)
    if not isinstance(theirs, list):
        assert not list(differences(ours, theirs))
        return
    for mine in ours:
        like = next(one for one in theirs if outline(one) == outline(mine))
        assert not list(differences(mine, like))
    by_index = [[outline(c) for c in s if _index(c) == _index(s[-1])] for s in (ours, theirs)]
    if body.get("max_tokens") == 10 or "OK!" in str(body):
        assert by_index[0] == by_index[1]
    else:
        assert by_index[0][-1] == by_index[1][-1]


def _index(chunk: Json) -> object:
    return chunk["choices"][0]["index"] if chunk["choices"] else None


@pytest.mark.parametrize("name", sorted(CASES))
async def test_endings_and_counts_are_the_recorded_ones(
    engine: httpx2.AsyncClient, name: str
) -> None:
    path, body = CASES[name]
    ours, theirs = await answer(engine, path, body), recorded(name)
    if isinstance(theirs, list):
        return
    if path == GENERATE:
        assert ours["details"]["finish_reason"] == theirs["details"]["finish_reason"]
        assert len(ours["details"]["tokens"]) == ours["details"]["generated_tokens"]
        said = "".join(one["text"] for one in ours["details"]["tokens"] if not one["special"])
        assert ours["generated_text"].endswith(said)
        return
    reasons = [[choice["finish_reason"] for choice in one["choices"]] for one in (ours, theirs)]
    assert reasons[0] == reasons[1]
    usage = ours["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    if reasons[0] == ["length"]:
        assert usage["completion_tokens"] == theirs["usage"]["completion_tokens"]


@pytest.mark.parametrize("name", sorted(LOADS))
async def test_parallel_requests_get_the_same_as_recorded_ones_do(
    engine: httpx2.AsyncClient, name: str
) -> None:
    ours = [await answer(engine, GENERATE, LOADS[name]) for _ in range(4)]
    theirs = recorded(name)
    for lot in (ours, theirs):
        assert len({one["generated_text"] for one in lot}) == 1
    assert not list(differences(ours[0], theirs[0]))


def test_every_recorded_body_is_a_case() -> None:
    names = {str(path.relative_to(DATA).with_suffix("")) for path in DATA.glob("test_*/*.json")}
    assert names == CASES.keys() | LOADS.keys()
