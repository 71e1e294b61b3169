"""The official clients read everything that the simulated engine writes, errors included."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import huggingface_hub.errors as hub
import openai
import pytest
from huggingface_hub import AsyncInferenceClient

from tests.simulated import Simulated, simulated_engines

WHY: list[Any] = [{"role": "user", "content": "Why is the sky blue?"}]
FAMILIES = ("tgi", "vllm", "sglang", "llamacpp")
MODEL = "tgi"


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Simulated]]:
    flags = ("--model", MODEL, "--median-tokens", "30", "--spread", "0")
    with simulated_engines(*((*flags, "--dialect", family) for family in FAMILIES)) as running:
        yield dict(zip(FAMILIES, running, strict=True))


@pytest.fixture(params=FAMILIES)
def engine(request: pytest.FixtureRequest, engines: dict[str, Simulated]) -> Iterator[Simulated]:
    chosen = engines[request.param]
    yield chosen
    chosen.control(fault=None)


@pytest.fixture
async def official(engine: Simulated) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{engine.url}/v1", api_key="-", max_retries=0
    ) as client:
        yield client


@pytest.fixture
async def hugging(engine: Simulated) -> AsyncIterator[AsyncInferenceClient]:
    async with AsyncInferenceClient(base_url=engine.url, api_key="-") as client:
        yield client


async def test_openai_reads_a_whole_answer(official: openai.AsyncOpenAI) -> None:
    answer = await official.chat.completions.create(model=MODEL, messages=WHY)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert answer.usage.completion_tokens == 31


async def test_openai_reads_a_stream_to_its_usage(official: openai.AsyncOpenAI) -> None:
    stream = await official.chat.completions.create(
        model=MODEL, messages=WHY, stream=True, max_tokens=9,
        stream_options={"include_usage": True},
    )  # fmt: skip
    chunks = [chunk async for chunk in stream]
    said = [choice.delta.content for chunk in chunks for choice in chunk.choices]
    assert len([text for text in said if text]) == 9
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 9


async def test_openai_reads_logprobs(official: openai.AsyncOpenAI) -> None:
    stream = await official.chat.completions.create(
        model=MODEL, messages=WHY, stream=True, max_tokens=3, logprobs=True
    )
    told = [c.choices[0].logprobs async for c in stream if c.choices[0].delta.content]
    assert all(one and one.content and one.content[0].logprob <= 0 for one in told)


async def test_huggingface_hub_reads_a_chat(hugging: AsyncInferenceClient) -> None:
    whole = await hugging.chat_completion(WHY, model=MODEL, max_tokens=9)
    stream = await hugging.chat_completion(WHY, model=MODEL, max_tokens=9, stream=True)
    said = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert said == whole.choices[0].message.content
    assert whole.usage.completion_tokens == 9


#: How each client tells each fault, in a stream: openai's error and huggingface_hub's.
FAULTS: dict[str, dict[str, tuple[type[Exception], type[Exception]]]] = {
    "refuse": {
        "tgi": (openai.APIError, hub.UnknownError),
        "": (openai.RateLimitError, hub.HfHubHTTPError),
    },
    "error": {"": (openai.InternalServerError, hub.HfHubHTTPError)},
    "in_band": {"": (openai.APIError, hub.UnknownError)},
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
@pytest.mark.parametrize("family", FAMILIES)
async def test_both_read_errors_of_streams(
    engines: dict[str, Simulated], family: str, fault: str
) -> None:
    engine = engines[family]
    by_openai, by_hub = FAULTS[fault].get(family) or FAULTS[fault][""]
    engine.control(fault=fault)
    try:
        async with openai.AsyncOpenAI(
            base_url=f"{engine.url}/v1", api_key="-", max_retries=0
        ) as official:
            with pytest.raises(by_openai):
                async for _ in await official.chat.completions.create(
                    model=MODEL, messages=WHY, stream=True
                ):
                    pass
        async with AsyncInferenceClient(base_url=engine.url, api_key="-") as hugging:
            with pytest.raises(by_hub):
                async for _ in await hugging.chat_completion(WHY, model=MODEL, stream=True):
                    pass
    finally:
        engine.control(fault=None)


@pytest.mark.parametrize(
    ("fault", "status", "error"),
    [
        ("refuse", 429, hub.OverloadedError),
        ("error", 500, hub.IncompleteGenerationError),
        ("in_band", 424, hub.GenerationError),
    ],
)
async def test_huggingface_hub_tells_tgis_errors_apart(
    engines: dict[str, Simulated], fault: str, status: int, error: type[Exception]
) -> None:
    engine = engines["tgi"]
    engine.control(fault=fault)
    try:
        async with AsyncInferenceClient(base_url=engine.url, api_key="-") as client:
            with pytest.raises(error):
                await client.text_generation("Why?")
            with pytest.raises(hub.HfHubHTTPError) as raised:
                await client.chat_completion(WHY)
        assert raised.value.response.status_code == status
    finally:
        engine.control(fault=None)


async def test_huggingface_hub_reads_native_generation(engines: dict[str, Simulated]) -> None:
    async with AsyncInferenceClient(base_url=engines["tgi"].url, api_key="-") as client:
        whole = await client.text_generation("Why?", details=True, return_full_text=False)
        stream = await client.text_generation(
            "Why?", details=True, stream=True, return_full_text=False
        )
        events = [event async for event in stream]
        invalid = client.text_generation("Why?", top_p=1.0)
        with pytest.raises(hub.ValidationError, match="`top_p` must be"):
            await invalid
    assert events[-1].generated_text == whole.generated_text
    assert events[-1].details
    assert events[-1].details.finish_reason == whole.details.finish_reason == "eos_token"
    assert len(events) == whole.details.generated_tokens


async def test_vllm_tells_cached_tokens_and_shares_prefixes(
    engines: dict[str, Simulated],
) -> None:
    engine = engines["vllm"]
    long: list[Any] = [{"role": "user", "content": "An unshared beginning. " * 40}]
    async with openai.AsyncOpenAI(base_url=f"{engine.url}/v1", api_key="-") as client:
        cached = []
        for _ in range(2):
            answer = await client.chat.completions.create(model=MODEL, messages=long, max_tokens=2)
            assert answer.usage
            assert answer.usage.prompt_tokens_details
            cached.append(answer.usage.prompt_tokens_details.cached_tokens or 0)
    assert cached[0] == 0
    assert cached[1] > 100
    metrics = engine.metrics()
    label = '{model_name="tgi",engine="0"}'
    assert metrics[f"vllm:prefix_cache_hits_total{label}"] >= cached[1]


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"model": "other"}, openai.NotFoundError),
        ({"top_p": 1.5}, openai.BadRequestError),
        ({"max_tokens": 10**6}, openai.BadRequestError),
        ({"extra_body": {"structured_outputs": {"regex": "("}}}, openai.BadRequestError),
        ({"messages": 7}, openai.BadRequestError),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_vllm_refuses_before_the_stream_begins(
    engines: dict[str, Simulated], more: dict[str, Any], error: type[Exception], stream: bool
) -> None:
    asked: Any = {"model": MODEL, "messages": WHY, "stream": stream} | more
    async with openai.AsyncOpenAI(
        base_url=f"{engines['vllm'].url}/v1", api_key="-", max_retries=0
    ) as client:
        with pytest.raises(error):
            await client.chat.completions.create(**asked)


@pytest.mark.parametrize(
    "fields",
    [{"structured_outputs": {"regex": "[ab]{5}c"}}, {"guided_regex": "[ab]{5}c"}],
)
async def test_vllm_keeps_to_a_grammar(
    engines: dict[str, Simulated], fields: dict[str, Any]
) -> None:
    async with openai.AsyncOpenAI(base_url=f"{engines['vllm'].url}/v1", api_key="-") as client:
        answer = await client.chat.completions.create(model=MODEL, messages=WHY, extra_body=fields)
    said = answer.choices[0].message.content or ""
    assert len(said) == 6
    assert set(said[:5]) <= {"a", "b"}
