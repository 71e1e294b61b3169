"""Everything can go wrong with a simulated engine, on demand, by seed, at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import httpx2
import pytest

from bench.simulated_engine.faults import KINDS, Faults
from tests.simulated import Simulated, simulated_engine, simulated_engines

CHAT: Final[dict[str, Any]] = {
    "messages": [{"role": "user", "content": "Why?"}], "stream": True, "max_tokens": 40,
}  # fmt: skip
PATH: Final = "/v1/chat/completions"
#: The others are vLLM's code.
FAMILIES: Final = ("tgi", "vllm")


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, Simulated]]:
    flags = ("--keep-alive-s", "0.1", "--median-tokens", "100", "--spread", "0")
    with simulated_engines(*((*flags, "--dialect", family) for family in FAMILIES)) as running:
        yield dict(zip(FAMILIES, running, strict=True))


@pytest.fixture(params=FAMILIES)
def engine(request: pytest.FixtureRequest, engines: dict[str, Simulated]) -> Iterator[Simulated]:
    chosen = engines[request.param]
    yield chosen
    chosen.control(fault=None, slow=1, frozen=False, healthy=True)


@pytest.fixture
async def client(engine: Simulated) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=engine.url, timeout=10, trust_env=False) as found:
        yield found


async def read(client: httpx2.AsyncClient, limit_s: float = 5) -> tuple[bytes, str]:
    """What came of a stream, and how it ended: well, cut or silent."""
    got = b""
    try:
        async with asyncio.timeout(limit_s), client.stream("POST", PATH, json=CHAT) as reply:
            async for part in reply.aiter_raw():
                got += part
    except httpx2.TransportError:
        return got, "cut"
    except TimeoutError:
        return got, "silent"
    return got, "well"


def texts(got: bytes) -> int:
    return got.count(b'"content":"') - got.count(b'"content":""')


async def test_without_a_fault_all_is_well(client: httpx2.AsyncClient) -> None:
    got, end = await read(client)
    assert (end, texts(got)) == ("well", 40)
    assert got.endswith(b"data: [DONE]\n\n")


async def test_a_cut_comes_between_events_and_cut_mid_within_one(
    engine: Simulated, client: httpx2.AsyncClient
) -> None:
    engine.control(fault="cut", after_tokens=7)
    got, end = await read(client)
    assert (end, texts(got), got[-2:]) == ("cut", 7, b"\n\n")
    engine.control(fault="cut_mid", after_tokens=7)
    got, end = await read(client)
    assert (end, got[-2:] == b"\n\n") == ("cut", False)


async def test_garbage_is_no_event(engine: Simulated, client: httpx2.AsyncClient) -> None:
    engine.control(fault="garbage", after_tokens=3)
    got, end = await read(client)
    assert end == "cut"
    with pytest.raises(json.JSONDecodeError):
        json.loads(got.rpartition(b"data: ")[2])


async def test_hangs_before_the_first_token_and_within(
    engine: Simulated, client: httpx2.AsyncClient
) -> None:
    engine.control(fault="hang")
    assert await read(client, 0.3) == (b"", "silent")
    engine.control(fault="keep_alive")
    got, end = await read(client, 0.5)
    assert end == "silent"
    assert set(got.split(b"\n\n")) == {b":", b""}
    engine.control(fault="hang_mid", after_tokens=5)
    got, end = await read(client, 0.3)
    assert (end, texts(got)) == ("silent", 5)


async def test_a_hung_stream_is_over_when_its_client_leaves(
    engine: Simulated, client: httpx2.AsyncClient
) -> None:
    engine.control(fault="hang_mid")
    await read(client, 0.2)
    async with asyncio.timeout(3):
        while engine.control()["in_flight"]:  # noqa: ASYNC110  # a remote state
            await asyncio.sleep(0.02)


async def test_an_error_has_its_status_before_the_stream(
    engine: Simulated, client: httpx2.AsyncClient
) -> None:
    engine.control(fault="error")
    assert (await client.post(PATH, json=CHAT)).status_code == 500


async def test_count_and_share_bound_a_fault(engine: Simulated, client: httpx2.AsyncClient) -> None:
    engine.control(fault="cut", count=2)
    assert [(await read(client))[1] for _ in range(3)] == ["cut", "cut", "well"]


async def test_all_that_run_can_be_cut_at_once(
    engine: Simulated, client: httpx2.AsyncClient
) -> None:
    engine.control(frozen=True)
    reading = [asyncio.create_task(read(client)) for _ in range(4)]
    async with asyncio.timeout(5):
        while engine.control()["in_flight"] < 4:  # noqa: ASYNC110  # a remote state
            await asyncio.sleep(0.02)
    engine.control(now="cut", frozen=False)
    assert [end for _, end in await asyncio.gather(*reading)] == ["cut"] * 4


async def test_time_stands_still_while_frozen(
    engine: Simulated, client: httpx2.AsyncClient
) -> None:
    engine.control(frozen=True)
    got, end = await read(client, 0.3)
    assert (end, texts(got)) == ("silent", 0)
    engine.control(frozen=False)
    assert (await read(client))[1] == "well"


async def test_health_can_be_taken_away(engine: Simulated, client: httpx2.AsyncClient) -> None:
    engine.control(healthy=False)
    assert (await client.get("/health")).status_code == 503


async def test_an_unknown_order_is_refused(client: httpx2.AsyncClient) -> None:
    for order in ({"fault": "fire"}, {"fualt": "cut"}, {"fault": "cut", "sahre": 1}):
        assert (await client.post("/control", json=order)).status_code == 400


async def test_it_dies() -> None:
    with simulated_engine("--fault", "die", "--fault-after-tokens", "3") as engine:
        async with httpx2.AsyncClient(base_url=engine.url, trust_env=False) as client:
            _, end = await read(client)
        assert end == "cut"
        assert await asyncio.to_thread(engine.process.wait, 5) == 137


async def test_it_ends_when_it_is_asked_to() -> None:
    with simulated_engine() as engine:
        engine.process.terminate()
        assert await asyncio.to_thread(engine.process.wait, 5) == 0


def test_the_same_seed_befalls_the_same_requests() -> None:
    def drawn(seed: int) -> list[object]:
        faults = Faults("cut", share=0.3, seed=seed)
        return [faults.draw() for _ in range(200)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert 30 < sum(one is not None for one in drawn(1)) < 90


def test_slowness_is_a_factor_on_time() -> None:
    flags = ("--profile", "llama-8b-1xh100", "--time-scale", "0.01", "--slow", "10")
    with simulated_engine(*flags) as engine:
        assert engine.control()["slow"] == 10
        assert engine.control(slow=2)["slow"] == 2


def test_every_kind_of_fault_has_a_test() -> None:
    with open(__file__, encoding="utf-8") as file:  # noqa: PTH123
        here = file.read()
    elsewhere = {"refuse", "in_band"}  # test_simulated_clients
    assert all(f'"{kind}"' in here for kind in set(KINDS) - elsewhere)
