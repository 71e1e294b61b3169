"""The clients that people have: OpenAI's, Hugging Face's, curl, and our own command line."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys

import openai
import orjson
import pytest
from huggingface_hub import InferenceClient

from proto.messages import JOINT
from tests.gateway.site import QUESTION, Site
from tests.scripted_engine import LOREM

pytestmark = pytest.mark.asyncio(loop_scope="package")

ANSWER = JOINT.join([LOREM.strip()] * 4)


async def test_openais_client(site: Site) -> None:
    def ask() -> str | None:
        with openai.OpenAI(base_url=f"{site.url}/v1", api_key="none", max_retries=0) as client:
            assert "skelgraph-sot" in {model.id for model in client.models.list()}
            answer = client.chat.completions.create(
                model="skelgraph-sgd", messages=[{"role": "user", "content": QUESTION}]
            )
            assert answer.usage is not None
            assert answer.usage.total_tokens > 0
            assert answer.choices[0].finish_reason == "stop"
            return answer.choices[0].message.content

    assert await asyncio.to_thread(ask) == ANSWER


async def test_openais_asynchronous_client_streams(site: Site) -> None:
    async with openai.AsyncOpenAI(base_url=f"{site.url}/v1", api_key="none") as client:
        stream = await client.chat.completions.create(
            model="skelgraph-sgd",
            messages=[{"role": "user", "content": QUESTION}],
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"skelgraph": {"max_nodes": 8}},
        )
        text, usage = "", None
        async for chunk in stream:
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
            usage = chunk.usage or usage
    assert text == ANSWER
    assert usage is not None


async def test_openais_client_understands_a_refusal(site: Site) -> None:
    async with openai.AsyncOpenAI(base_url=f"{site.url}/v1", api_key="none") as client:
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(
                model="skelgraph",
                messages=[{"role": "user", "content": QUESTION}],
                tools=[{"type": "function", "function": {"name": "look", "parameters": {}}}],
            )
        assert (refused.value.param, refused.value.code) == ("tools", "unsupported_parameter")
        with pytest.raises(openai.NotFoundError) as unknown:
            await client.models.retrieve("gpt-4")
        assert unknown.value.code == "model_not_found"


async def test_hugging_faces_client(site: Site) -> None:
    def ask() -> tuple[str, str]:
        client = InferenceClient(base_url=f"{site.url}/v1", api_key="none")
        messages = [{"role": "user", "content": QUESTION}]
        whole = client.chat_completion(messages, model="skelgraph-sgd", temperature=0.0)
        chunks = client.chat_completion(messages, model="skelgraph-sgd", stream=True)
        said = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
        return str(whole.choices[0].message.content), said

    assert await asyncio.to_thread(ask) == (ANSWER, ANSWER)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
async def test_curl(site: Site) -> None:
    body = orjson.dumps(
        {"model": "skelgraph-sgd", "messages": [{"role": "user", "content": QUESTION}]}
    )
    done = await run(
        "curl", "--silent", "--fail", "--json", body.decode(), f"{site.url}/v1/chat/completions"
    )
    assert done.returncode == 0, done.stderr
    assert orjson.loads(done.stdout)["choices"][0]["message"]["content"] == ANSWER


async def test_the_command_line_asks_a_gateway_with_the_same_progress(site: Site) -> None:
    argv = [sys.executable, "-m", "skelgraph", "ask", QUESTION, "--mode", "sgd"]
    done = await run(*argv, "--url", site.url, "--progress", "plain", "--stream", "nodes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().strip() == ANSWER
    for said in ("What speaks for it", "done", "critical path"):
        assert said in done.stderr.decode()


async def test_the_command_line_says_what_is_wrong_with_a_gateway(site: Site) -> None:
    argv = [sys.executable, "-m", "skelgraph", "ask", QUESTION, "--url"]
    away = await run(*argv, "http://127.0.0.1:9")
    assert away.returncode == 3
    assert b"(gateway_unavailable)" in away.stderr
    unknown = await run(
        sys.executable, "-m", "skelgraph", "watch", "no-such-request", "--url", site.url
    )
    assert unknown.returncode == 1
    assert b"(unknown_request)" in unknown.stderr


async def run(*argv: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program beside the site."""
    env = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    )
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    return subprocess.CompletedProcess(argv, process.returncode or 0, out, err)
