"""The simulated engine's routes and answers are those of TGI's own OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from pydantic import BaseModel

from bench.simulated_engine import asked
from tests.simulated import simulated_engine

Json = dict[str, Any]
DOCUMENT: Final = Path(__file__).parents[2].parent / "shared/data/tgi/openapi.json"
pytestmark = pytest.mark.skipif(not DOCUMENT.exists(), reason="TGI's OpenAPI document is not here")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with simulated_engine() as engine:
        yield engine.url


@pytest.fixture
async def engine(url: str) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=url, timeout=20, trust_env=False) as client:
        yield client


CHAT: Final[Json] = {"messages": [{"role": "user", "content": "Why?"}]}
INPUTS: Final[Json] = {"inputs": "Why?", "parameters": {"details": True, "max_new_tokens": 5}}
#: Routes, by what is sent there.
ROUTES: Final[dict[tuple[str, str], Json | None]] = {
    ("post", "/"): {"inputs": "Why?"},
    ("post", "/chat_tokenize"): CHAT,
    ("post", "/generate"): INPUTS,
    ("post", "/generate_stream"): INPUTS,
    ("get", "/health"): None,
    ("get", "/info"): None,
    ("get", "/metrics"): None,
    ("post", "/tokenize"): {"inputs": "Why?"},
    ("post", "/v1/chat/completions"): CHAT,
    ("post", "/v1/completions"): {"prompt": "Why?"},
    ("get", "/v1/models"): None,
}
#: Not simulated: SageMaker's form of the same.
NOT_CLAIMED: Final = {("post", "/invocations")}
#: openapi.json says the entry, TGI answers with a list of it (router/src/server.rs).
LISTED: Final = {"/v1/models", "/tokenize"}


def openapi() -> Json:
    document: Json = json.loads(DOCUMENT.read_text("utf-8"))
    return document


def test_every_route_of_the_document_is_claimed_or_named() -> None:
    routes = {(method, path) for path, item in openapi()["paths"].items() for method in item}
    assert routes == ROUTES.keys() | NOT_CLAIMED


KINDS: Final[dict[str, Any]] = {
    "string": str, "integer": int, "number": int | float, "boolean": bool, "object": dict,
    "array": list,
}  # fmt: skip


def violations(value: Any, schema: Json, document: Json, where: str = "$") -> Iterator[str]:
    """Where `value` is not as the schema says; the document is not valid enough for a library."""
    nullable = schema.get("nullable", False)
    if "allOf" in schema:
        (schema,) = schema["allOf"]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    if value is None and nullable:
        return
    if "oneOf" in schema:
        found = [list(violations(value, one, document, where)) for one in schema["oneOf"]]
        yield from min(found, key=len)
    elif "type" in schema and not isinstance(value, KINDS[schema["type"]]):
        yield f"{where}: {value!r} is no {schema['type']}"
    elif value not in schema.get("enum", [value]):
        yield f"{where}: {value!r}"
    else:
        yield from _within(value, schema, document, where)


def _within(value: Any, schema: Json, document: Json, where: str) -> Iterator[str]:
    if isinstance(value, list):
        for one in value:
            yield from violations(one, schema.get("items", {}), document, f"{where}[]")
    if isinstance(value, dict):
        yield from (f"{where}.{key}: missing" for key in schema.get("required", ())
                    if key not in value)  # fmt: skip
        for key in schema.get("properties", {}).keys() & value.keys():
            one = schema["properties"][key]
            yield from violations(value[key], one, document, f"{where}.{key}")


@pytest.mark.parametrize(("method", "path"), sorted(ROUTES))
async def test_answers_fit_the_document(engine: httpx2.AsyncClient, method: str, path: str) -> None:
    document, body = openapi(), ROUTES[method, path]
    reply = await engine.request(method, path, json=body)
    assert reply.status_code == 200
    content = document["paths"][path][method]["responses"]["200"].get("content", {})
    if "application/json" in content:
        value = reply.json()
        if path in LISTED:
            value = value["data"][0] if path == "/v1/models" else value
        assert not list(violations(value, content["application/json"]["schema"], document))
    if body is not None and "text/event-stream" in content:
        stream = await engine.request(method, path, json=body | {"stream": True})
        for line in stream.text.split("\n\n"):
            if line.startswith("data: {"):
                event = json.loads(line.removeprefix("data: "))
                schema = content["text/event-stream"]["schema"]
                assert not list(violations(event, schema, document))


#: Fields of requests that are not even read: there is no model that they could change.
FIELDS: Final[dict[str, set[str]]] = {
    "GenerateParameters": set(),
    "ChatRequest": {"logit_bias", "n", "tool_choice", "tool_prompt", "top_logprobs"},
    "CompletionRequest": {"frequency_penalty", "repetition_penalty", "suffix"},
}


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_every_field_of_a_request_is_read_or_named(name: str) -> None:

    models: dict[str, type[BaseModel]] = {
        "GenerateParameters": asked.GenerateParameters,
        "ChatRequest": asked.TgiChat,
        "CompletionRequest": asked.TgiCompletion,
    }
    documented = set(openapi()["components"]["schemas"][name]["properties"])
    assert documented - set(models[name].model_fields) == FIELDS[name]
