"""The simulated engine over real HTTP."""

from __future__ import annotations

import pytest
from huggingface_hub import AsyncInferenceClient

from bench.simulated_engine.options import Family, Options
from bench.simulated_engine.server import serving


@pytest.mark.parametrize("family", ["tgi", "vllm", "sglang", "llamacpp"])
async def test_streams_a_chat(family: Family) -> None:
    async with (
        serving(Options(family=family, model="m")) as url,
        AsyncInferenceClient(base_url=url, api_key="-") as client,
    ):
        stream = await client.chat_completion(
            [{"role": "user", "content": "Why?"}], model="m", stream=True, max_tokens=5
        )
        chunks = [chunk async for chunk in stream]
    said = [chunk.choices[0].delta.content for chunk in chunks]
    assert len([text for text in said if text]) == 5
    assert chunks[-1].choices[0].finish_reason == "length"
