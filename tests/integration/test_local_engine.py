import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from skelgraph.local import ports
from skelgraph.local.engine import EngineOptions
from skelgraph.local.models import ensure_model
from skelgraph.local.process import Child


def options(model: Path, port: int) -> EngineOptions:
    return EngineOptions(model=model, port=port, slots=2, context_tokens_per_slot=256, threads=1)


def run_to_its_end(engine: EngineOptions) -> subprocess.CompletedProcess[str]:
    return subprocess.run(engine.argv(), capture_output=True, text=True, timeout=30, check=False)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"hello")
    ended = run_to_its_end(options(tmp_path / "bad.gguf", ports.free_port()))
    assert ended.returncode == 1
    assert "bad.gguf is not a GGUF file" in ended.stderr


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\0" * 1000)
    ended = run_to_its_end(options(tmp_path / "bad.gguf", ports.free_port()))
    assert ended.returncode == 1
    assert "llama.cpp cannot serve" in ended.stderr


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        ended = run_to_its_end(options(tmp_path / "a.gguf", port))
    assert ended.returncode == 1
    assert f"127.0.0.1:{port}" in ended.stderr


def test_a_size_of_nothing_is_refused() -> None:
    argv = [sys.executable, "-m", "skelgraph.local.engine", "--model", "x", "--port", "0"]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert "0 is not positive" in ended.stderr


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    started = options(ensure_model("smollm2-135m"), ports.free_port())
    log_path = tmp_path_factory.mktemp("engine") / "engine.log"
    child = Child(started.process_spec("engine"), log_path)
    child.launch()
    child.wait_ready()
    yield child
    child.kill()


def complete(engine: Child, prompt: str, **more: int) -> dict[str, object]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{engine.spec.port}/v1/completions",
        json.dumps({"prompt": prompt, **more}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        answer = json.load(reply)
    assert isinstance(answer, dict)
    return answer


@pytest.mark.engine
def test_it_completes_quietly(engine: Child) -> None:
    assert complete(engine, "Once upon a time", max_tokens=3)["choices"]
    assert len(engine.tail()) == 1


@pytest.mark.engine
def test_a_prompt_longer_than_the_context_is_an_error(engine: Child) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        complete(engine, "hello " * 300, max_tokens=3)
    with refused.value as reply:
        assert reply.code == 400
        assert json.load(reply)["error"]["type"] == "exceed_context_size_error"


@pytest.mark.engine
def test_an_answer_longer_than_the_context_is_cut_off(engine: Child) -> None:
    answer = complete(engine, "hello " * 240, max_tokens=100, ignore_eos=True)
    assert isinstance(answer["choices"], list)
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.engine
@pytest.mark.parametrize("path", ["/health", "/slots", "/metrics", "/props"])
def test_its_pages_are_served(engine: Child, path: str) -> None:
    assert ports.http_status(engine.spec.port, path) == 200


@pytest.mark.engine
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_ends_within_a_second_of_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    started = options(ensure_model("smollm2-135m"), ports.free_port())
    child = Child(started.process_spec("engine"), tmp_path / "log")
    child.launch()
    await child.ready()
    sent_s = time.monotonic()
    child.signal(number)
    await child.ended()
    assert time.monotonic() - sent_s < 1.0
