"""A pool of endpoints over real HTTP: one may die, hang, refuse, come or go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest

from proto.errors import (
    EngineCutOff,
    EngineOverloaded,
    EngineRejected,
    EngineTimedOut,
    EngineUnavailable,
)
from services.runtime.balance import PoolPolicy, rank
from services.runtime.calls import EngineLimits
from services.runtime.dialects import TGI
from services.runtime.endpoints import EnginePool
from services.runtime.engine import ChatCall, ChatMessage, EngineStream
from services.runtime.pace import FirstTokens
from tests import waiting
from tests.scripted_engine import (
    Begin,
    Cut,
    Fail,
    FailInBand,
    Finish,
    Say,
    Script,
    ScriptedEngine,
    Step,
    Wait,
)

CALL = ChatCall((ChatMessage("user", "Why?"),), max_tokens=4)
NEVER = Wait(3600.0)


async def read(stream: EngineStream) -> str:
    async with stream:
        return "".join([chunk.text async for chunk in stream])


def does(*steps: Step) -> Script:
    return lambda _: list(steps)


answers = does(Say("a"), Finish())


@asynccontextmanager
async def pool_of(
    *scripts: Script, policy: PoolPolicy | None = None, limits: EngineLimits | None = None
) -> AsyncIterator[tuple[EnginePool, list[ScriptedEngine]]]:
    """Engines, and a pool of them whose key `k` ranks them in their order."""
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(ScriptedEngine(answers)) for _ in scripts]
        pool = EnginePool([e.url for e in engines], dialect=TGI, policy=policy, limits=limits)
        stack.push_async_callback(pool.close)
        by_url = {engine.url: engine for engine in engines}
        ranked: list[ScriptedEngine] = []
        for script in scripts:
            url = pool.likely("k", None) if not ranked else _next(pool, by_url, ranked)
            by_url[url].script = script
            ranked.append(by_url[url])
        yield pool, ranked


def _next(
    pool: EnginePool, by_url: dict[str, ScriptedEngine], ranked: Sequence[ScriptedEngine]
) -> str:
    taken = {engine.url for engine in ranked}
    return next(one.url for one in rank(pool.endpoints, "k") if one.url not in taken)


# --- failover ---------------------------------------------------------------------------


async def test_a_call_survives_an_endpoint_that_is_dead() -> None:
    async with pool_of(answers, answers) as (pool, (dead, alive)):
        await dead.__aexit__()
        stream = pool.stream(CALL, key="k")
        assert await read(stream) == "a"
        assert stream.completion.endpoint == stream.endpoint == alive.url
        await pool.check()
        assert pool.likely("k", None) == alive.url
        assert pool.in_flight == 0


async def test_with_nobody_left_the_error_is_told() -> None:
    async with ScriptedEngine(answers) as engine:
        url = engine.url
    pool = EnginePool([url], dialect=TGI)
    with pytest.raises(EngineUnavailable):
        await read(pool.stream(CALL, key="k"))
    with pytest.raises(EngineUnavailable):
        await pool.check()
    await pool.close()


@pytest.mark.parametrize(
    "fails",
    [
        does(Cut()),
        does(Begin(), Cut()),
        does(Fail(503, b"loading")),
        does(Fail(429)),
        does(FailInBand({"error": {"message": "Model is overloaded", "http_status_code": 422}})),
    ],
    ids=["cut before headers", "cut before text", "loading", "429", "overloaded in band"],
)
async def test_before_its_first_token_a_call_goes_elsewhere(fails: Script) -> None:
    async with pool_of(fails, answers) as (pool, (first, second)):
        assert await read(pool.stream(CALL, key="k")) == "a"
        assert (len(first.calls), len(second.calls)) == (1, 1)
        assert pool.in_flight == 0


async def test_after_its_first_token_a_call_stays_and_its_error_is_told() -> None:
    async with pool_of(does(Say("half"), Cut()), answers) as (pool, (_, second)):
        async with pool.stream(CALL, key="k") as stream:
            assert (await anext(stream)).text == "half"
            with pytest.raises(EngineCutOff):
                await anext(stream)
        assert not second.calls
        assert pool.in_flight == 0


async def test_what_no_engine_would_take_goes_to_one() -> None:
    async with pool_of(does(Fail(400, b"bad")), answers) as (pool, (_, second)):
        with pytest.raises(EngineRejected):
            await read(pool.stream(CALL, key="k"))
        assert not second.calls


async def test_a_prompt_that_kills_engines_does_not_kill_them_all() -> None:
    async with pool_of(*[does(Cut())] * 5) as (pool, engines):
        with pytest.raises(EngineUnavailable):
            await read(pool.stream(CALL, key="k"))
        assert sum(len(engine.calls) for engine in engines) == 3


async def test_a_call_leaves_an_endpoint_that_has_fallen_silent() -> None:
    policy = PoolPolicy(silent_after_s=0.2)
    async with pool_of(does(Begin(), NEVER), answers, policy=policy) as (pool, (hung, _)):
        hung.healthy = False
        assert await read(pool.stream(CALL, key="k")) == "a"
        async with asyncio.timeout(1):
            await (await hung.call()).left.wait()
        assert pool.in_flight == 0


async def test_a_reply_that_breaks_off_in_silence_is_told_before_its_own_limit() -> None:
    policy = PoolPolicy(silent_after_s=0.2)
    async with pool_of(does(Say("half"), NEVER), answers, policy=policy) as (pool, (hung, _)):
        async with pool.stream(CALL, key="k") as stream:
            await anext(stream)
            waiting = asyncio.create_task(anext(stream), name="reader")
            async with asyncio.timeout(10):
                while not waiting.done():
                    await read(pool.stream(CALL, key="k", avoid=hung.url))
            with pytest.raises(EngineTimedOut, match="silent"):
                await waiting
        assert pool.in_flight == 0


async def test_silence_is_noticed_without_new_calls() -> None:
    policy = PoolPolicy(silent_after_s=0.2)
    async with (
        pool_of(does(Say("half"), NEVER), answers, policy=policy) as (pool, _),
        pool.stream(CALL, key="k") as stream,
    ):
        await anext(stream)
        async with asyncio.timeout(3):
            with pytest.raises(EngineTimedOut, match="silent"):
                await anext(stream)


async def test_engines_that_are_busy_are_not_taken_for_dead() -> None:
    late = does(Wait(1.0), Say("late"), Finish())
    async with pool_of(late, late, policy=PoolPolicy(silent_after_s=0.2)) as (pool, engines):
        assert await read(pool.stream(CALL, key="k")) == "late"
        assert [len(engine.calls) for engine in engines] == [1, 0]
        assert "/health" in engines[0].asked


async def test_silence_sends_a_call_on_as_often_as_there_are_engines() -> None:
    policy = PoolPolicy(silent_after_s=0.1)
    async with pool_of(*[does(NEVER)] * 4, answers, policy=policy) as (pool, engines):
        for hung in engines[:4]:
            hung.healthy = False
        assert await read(pool.stream(CALL, key="k")) == "a"


async def test_a_hung_endpoint_that_is_alone_is_waited_for() -> None:
    limits = EngineLimits(first_token_s=0.6)
    policy = PoolPolicy(silent_after_s=0.1)
    async with pool_of(does(NEVER), policy=policy, limits=limits) as (pool, (hung,)):
        with pytest.raises(EngineTimedOut, match="no text"):
            await read(pool.stream(CALL, key="k"))
        assert len(hung.calls) == 1


async def test_an_endpoint_that_was_left_out_is_asked_and_comes_back() -> None:
    async with pool_of(does(Cut()), answers) as (pool, (bad, _)):
        await read(pool.stream(CALL, key="k"))
        assert pool.likely("k", None) != bad.url
        bad.script = answers
        async with asyncio.timeout(5):
            while pool.likely("k", None) != bad.url:
                await read(pool.stream(CALL, key="other"))
                await asyncio.sleep(0.05)
        assert "/health" in bad.asked
        stream = pool.stream(CALL, key="k")
        await read(stream)
        assert stream.completion.endpoint == bad.url


# --- overload ---------------------------------------------------------------------------


def at_most(streams: int) -> Script:
    """An engine that refuses more than so many streams at once."""
    open_now = 0

    async def script(_: object) -> AsyncIterator[Step]:
        nonlocal open_now
        if open_now >= streams:
            yield Fail(429, b'{"error":"Model is overloaded","error_type":"overloaded"}')
            return
        open_now += 1
        try:
            yield Say("a")
            yield Wait(0.01)
            yield Finish()
        finally:
            open_now -= 1

    return script


async def test_overload_is_waited_out_and_refusals_stay_the_exception() -> None:
    async with pool_of(at_most(4), at_most(4)) as (pool, engines):
        texts = await asyncio.gather(*(read(pool.stream(CALL, key=str(n))) for n in range(200)))
        assert texts == ["a"] * 200
        refused = sum(len(engine.calls) for engine in engines) - 200
        # Two windows of 16 meet engines that take 4: 24 are refused at once; then hardly any.
        assert refused < 48
        assert pool.in_flight == 0


async def test_overload_that_does_not_end_is_told_as_such() -> None:
    policy = PoolPolicy(overload_wait_s=0.2)
    async with pool_of(does(Fail(429)), does(Fail(429)), policy=policy) as (pool, _):
        with pytest.raises(EngineOverloaded):
            await read(pool.stream(CALL, key="k"))


async def test_an_engine_that_refuses_is_not_asked_in_a_loop_while_the_others_are_full() -> None:
    policy = PoolPolicy(max_in_flight=1, overload_wait_s=1)
    scripts = (does(Fail(429)), does(Say("a"), NEVER))
    async with pool_of(*scripts, policy=policy) as (pool, (refusing, _)):
        async with pool.stream(CALL, key="k", avoid=refusing.url):
            with pytest.raises(EngineOverloaded):
                await read(pool.stream(CALL, key="k"))
        assert len(refusing.calls) < 10


async def test_a_call_waits_for_room_and_no_longer_than_its_limit() -> None:
    policy, limits = PoolPolicy(max_in_flight=1), EngineLimits(first_token_s=0.2)
    async with pool_of(does(Say("a"), NEVER), policy=policy, limits=limits) as (pool, (engine,)):
        async with pool.stream(CALL, key="k"):
            with pytest.raises(EngineOverloaded, match="as many streams"):
                await read(pool.stream(CALL, key="k"))
        engine.script = answers
        assert await read(pool.stream(CALL, key="k")) == "a"
        assert pool.in_flight == 0


async def test_who_waits_for_room_gets_it_in_turn() -> None:
    policy = PoolPolicy(max_in_flight=1)
    order: list[int] = []

    async def one(pool: EnginePool, number: int) -> None:
        async with pool.stream(CALL, key="k") as stream:
            order.append(number)
            async for _ in stream:
                pass

    async with pool_of(answers, policy=policy) as (pool, _):
        await asyncio.gather(*(one(pool, number) for number in range(10)))
    assert order == list(range(10))


# --- leaving ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps", [(NEVER,), (Begin(), NEVER), (Say("a"), NEVER)], ids=["call", "headers", "text"]
)
async def test_in_flight_counts_what_is_open_and_forgets_what_is_cancelled(
    steps: Sequence[Step],
) -> None:
    async with pool_of(does(*steps)) as (pool, (engine,)):
        task = asyncio.create_task(read(pool.stream(CALL, key="k")), name="reader")
        call = await engine.call()
        await call.waiting.wait()
        assert pool.in_flight == 1
        task.cancel()
        async with asyncio.timeout(1):
            await call.left.wait()
            await asyncio.wait([task])
        assert pool.in_flight == 0


async def test_a_call_that_is_cancelled_twice_is_forgotten_too() -> None:
    async with pool_of(does(Begin(), NEVER)) as (pool, (engine,)):
        task = asyncio.create_task(read(pool.stream(CALL, key="k")), name="reader")
        call = await engine.call()
        await call.waiting.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await until(lambda: not pool.in_flight)
        async with asyncio.timeout(1):
            await call.left.wait()


async def test_an_error_of_the_caller_leaves_nothing_open() -> None:
    async with pool_of(does(Say("a"), NEVER)) as (pool, (engine,)):
        with pytest.raises(KeyError):
            await fail_within(pool.stream(CALL, key="k"))
        async with asyncio.timeout(1):
            await (await engine.call()).left.wait()
        assert pool.in_flight == 0


async def fail_within(stream: EngineStream) -> None:
    async with stream:
        raise KeyError


# --- hedging ----------------------------------------------------------------------------

HEDGING = PoolPolicy(hedge_percentile=90)


async def warm(pool: EnginePool) -> None:
    """Let the pool see what is usual: as many calls as it needs, so that none is late yet."""
    for _ in range(FirstTokens.ENOUGH):
        await read(pool.stream(CALL, key="k"))


async def test_a_late_call_is_sent_twice_and_one_result_is_used() -> None:
    late = does(Wait(30.0), Say("late"), Finish())
    async with pool_of(answers, answers, policy=HEDGING) as (pool, (first, second)):
        await warm(pool)
        first.script, second.script = late, does(Say("b"), Say("c"), Finish())
        began = time.monotonic()
        stream = pool.stream(CALL, key="k")
        assert await read(stream) == "bc"
        assert time.monotonic() - began < 5
        assert stream.completion.endpoint == second.url
        async with asyncio.timeout(1):
            await first.calls[-1].left.wait()
        assert pool.in_flight == 0


async def test_the_first_endpoint_may_still_win() -> None:
    async with pool_of(answers, answers, policy=HEDGING) as (pool, (first, second)):
        await warm(pool)
        gate = asyncio.Event()
        first.script, second.script = does(Wait(gate), Say("b"), Finish()), does(Begin(), NEVER)
        reading = asyncio.create_task(read(pool.stream(CALL, key="k")), name="reader")
        loser = await second.call()
        gate.set()
        assert await reading == "b"
        async with asyncio.timeout(1):
            await loser.left.wait()
        assert pool.in_flight == 0


async def test_if_the_first_fails_while_hedged_the_second_goes_on() -> None:
    async with pool_of(answers, answers, policy=HEDGING) as (pool, (first, second)):
        await warm(pool)
        gate, other = asyncio.Event(), asyncio.Event()
        first.script = does(Wait(gate), Cut())
        second.script = does(Wait(other), Say("b"), Finish())
        reading = asyncio.create_task(read(pool.stream(CALL, key="k")), name="reader")
        await second.call()
        gate.set()
        await first.calls[-1].over.wait()
        other.set()
        assert await reading == "b"
        assert (len(second.calls), pool.in_flight) == (1, 0)


async def test_hedging_is_off_by_default() -> None:
    async with pool_of(answers, answers) as (pool, (first, second)):
        await warm(pool)
        first.script = does(Wait(0.7), Say("late"), Finish())
        assert await read(pool.stream(CALL, key="k")) == "late"
        assert not second.calls


# --- names ------------------------------------------------------------------------------


class Names:
    """A name server of the test's own: one name, one address, any number of times."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = list(hosts)
        self.asked = asyncio.Event()

    async def __call__(self, _host: str, _port: int) -> Sequence[str]:
        self.asked.set()
        if not self.hosts:
            raise OSError("no such name")
        return list(self.hosts)


until = partial(waiting.until, limit_s=5)


async def test_endpoints_come_and_go_without_a_call_failing() -> None:
    async with ScriptedEngine(answers, port=0) as engine:
        port = int(engine.url.rsplit(":", 1)[1])
        names = Names("127.0.0.1")
        policy = PoolPolicy(resolve_every_s=0.02)
        pool = EnginePool([f"dns+http://pods:{port}"], dialect=TGI, policy=policy, lookup=names)
        assert await read(pool.stream(CALL, key="k")) == "a"
        gate = asyncio.Event()
        engine.script = does(Say("a"), Wait(gate), Say("b"), Finish())
        async with pool.stream(CALL, key="k") as stream:
            await anext(stream)
            # 127.0.0.2 is nobody: to be there means to be tried, and to be passed over.
            names.hosts = ["127.0.0.2", "localhost"]
            await until(lambda: len(pool.endpoints) == 2)
            assert pool.in_flight == 1, "the stream of the endpoint that left goes on"
            gate.set()
            assert [chunk.text async for chunk in stream] == ["b"]
        engine.script = answers
        texts = await asyncio.gather(*(read(pool.stream(CALL, key=str(n))) for n in range(10)))
        assert texts == ["a"] * 10
        assert pool.in_flight == 0
        await pool.close()


async def test_a_name_that_does_not_resolve_is_told_and_asked_again() -> None:
    names = Names()
    async with ScriptedEngine(answers) as engine:
        port = engine.url.rsplit(":", 1)[1]
        policy = PoolPolicy(resolve_every_s=0.02)
        pool = EnginePool([f"dns+http://pods:{port}"], dialect=TGI, policy=policy, lookup=names)
        with pytest.raises(EngineUnavailable, match="resolves"):
            await read(pool.stream(CALL, key="k"))
        names.hosts = ["127.0.0.1"]
        await until(lambda: pool.endpoints)
        assert await read(pool.stream(CALL, key="k")) == "a"
        await pool.close()


async def test_a_resolver_that_breaks_hangs_no_call() -> None:
    async def broken(_host: str, _port: int) -> Sequence[str]:
        raise UnicodeError("label too long")

    pool = EnginePool(["dns+http://pods:80"], dialect=TGI, lookup=broken)
    async with asyncio.timeout(2):
        with pytest.raises(EngineUnavailable, match="resolves"):
            await read(pool.stream(CALL, key="k"))
    await pool.close()


async def test_the_systems_resolver_is_asked() -> None:
    async with ScriptedEngine(answers) as engine:
        port = engine.url.rsplit(":", 1)[1]
        pool = EnginePool([f"dns+http://localhost:{port}"], dialect=TGI)
        assert await read(pool.stream(CALL, key="k")) == "a"
        await pool.close()


# --- health -----------------------------------------------------------------------------


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


async def test_one_healthy_endpoint_is_enough_and_a_hung_one_does_not_delay() -> None:
    hung = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with ScriptedEngine(answers) as engine:
        url = f"http://127.0.0.1:{hung.sockets[0].getsockname()[1]}"
        pool = EnginePool([url, engine.url], dialect=TGI)
        async with asyncio.timeout(2):
            await pool.check()
        await pool.close()
    hung.close()


async def test_callers_of_an_engine_that_hangs_while_it_is_probed_do_not_queue_up() -> None:
    hung = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{hung.sockets[0].getsockname()[1]}"
    pool = EnginePool([url], limits=EngineLimits(first_token_s=0.3, check_s=30))
    began = time.monotonic()
    results = await asyncio.gather(
        *(read(pool.stream(CALL, key="k")) for _ in range(10)), return_exceptions=True
    )
    assert {type(result) for result in results} == {EngineTimedOut}
    assert time.monotonic() - began < 2
    await pool.close()
    hung.close()
