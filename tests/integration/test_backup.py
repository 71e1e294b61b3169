"""A backup taken under load holds all that was accepted before it; restored, every request ends."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import orjson
import pytest

from proto.messages import AnswerAssembled, NodeDecoded
from proto.names import Stream
from services.runtime.facts import EventLog
from services.runtime.snapshots import DATA, META, ORDER
from skelgraph.local.nats import NatsServer
from tests.conftest import Runtime, open_runtime
from tests.processes import Services, end_of, submit
from tests.scripted_engine import ScriptedEngine, writer

REQUESTS = [f"kept-{number:02}" for number in range(30)]


async def backup(
    server: NatsServer, action: str, folder: Path, *more: str
) -> tuple[int | None, str]:
    env = {"SKELGRAPH_NATS_URL": server.url, "SKELGRAPH_LOG_FORMAT": "json"}
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-m",
            "services.backup",
            "--action",
            action,
            "--folder",
            str(folder),
            *more,
        ),
        env=os.environ | env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def start_all(stack: AsyncExitStack, runtime: Runtime, logs: Path, engine: str) -> None:
    services = Services(
        stack, runtime, logs, large_urls=engine, small_urls=engine, slots="3", drain_s="0"
    )
    await asyncio.gather(
        services.start("assembler"),
        services.start("planner"),
        services.start("worker", "--pool", "large"),
        services.start("worker", "--pool", "small"),
    )


async def test_what_was_accepted_before_the_backup_ends_after_the_restore(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(ScriptedEngine(writer(token_s=0.01)))
        async with AsyncExitStack() as first:
            server = await first.enter_async_context(NatsServer(tmp_path / "first"))
            runtime = await open_runtime(first, server)
            await start_all(first, runtime, tmp_path / "logs-1", engine.url)
            for request in REQUESTS:
                await submit(runtime, request, mode="sgd")
            await end_of(runtime, REQUESTS[0])
            # Now some have ended, some are being decoded, planned, or wait for a planner.
            code, said = await backup(server, "save", saved)
            assert code == 0, said
        server = await stack.enter_async_context(NatsServer(tmp_path / "second"))
        code, said = await backup(server, "restore", saved)
        assert code == 0, said
        kept = {stream: messages_in(said, stream) for stream in Stream}
        assert kept[Stream.REQUESTS] + kept[Stream.NODES] > 0, "the backup came too late"
        runtime = await open_runtime(stack, server)
        await start_all(stack, runtime, tmp_path / "logs-2", engine.url)
        for request in REQUESTS:
            await end_of(runtime, request, limit_s=50)
        for request in REQUESTS:
            await check(runtime.events, request)


def messages_in(said: str, stream: Stream) -> int:
    for line in said.splitlines():
        told = orjson.loads(line)
        if told["event"] == "stream_restored" and told["stream"] == stream:
            return int(told["messages"])
    raise AssertionError(said)


async def check(events: EventLog, request: str) -> None:
    """One end, of the nodes' texts, and nothing said twice."""
    facts = [stored.fact for stored in await events.read(request)]
    kinds = Counter(
        (type(fact).__name__, getattr(fact, "node", None) if isinstance(fact, NodeDecoded) else 0)
        for fact in facts
        if isinstance(fact, NodeDecoded | AnswerAssembled)
    )
    assert set(kinds.values()) == {1}, f"{request}: {kinds}"
    ends = [fact for fact in facts if isinstance(fact, AnswerAssembled)]
    assert len(ends) == 1
    # A plan that was saved half-written may end as a direct answer: the engine here cannot go on.
    assert ends[0].text.count("Lorem ipsum") >= (4 if ends[0].mode == "sgd" else 2)


async def test_streams_that_are_there_are_not_overwritten(runtime: Runtime, tmp_path: Path) -> None:
    await submit(runtime, "there", mode="direct")
    saved = tmp_path / "saved"
    assert (await backup(runtime.server, "save", saved))[0] == 0
    code, said = await backup(runtime.server, "restore", saved)
    assert code == 1
    assert "already in use" in said


async def test_a_backup_into_a_folder_that_holds_one_is_refused(
    runtime: Runtime, tmp_path: Path
) -> None:
    assert (await backup(runtime.server, "save", tmp_path / "saved"))[0] == 0
    before = (tmp_path / "saved" / Stream.EVENTS / DATA).read_bytes()
    code, said = await backup(runtime.server, "save", tmp_path / "saved")
    assert code == 1
    assert "File exists" in said
    assert (tmp_path / "saved" / Stream.EVENTS / DATA).read_bytes() == before


async def test_a_backup_that_fails_leaves_nothing_behind(runtime: Runtime, tmp_path: Path) -> None:
    # By its last stream, so that the others have been saved.
    await runtime.connection.api(f"STREAM.DELETE.{ORDER[-1]}", {})
    code, said = await backup(runtime.server, "save", tmp_path / "saved")
    assert code == 1
    assert "stream_saved" in said
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("stream", [ORDER[0], ORDER[-1]])
async def test_half_a_backup_restores_nothing(
    runtime: Runtime, tmp_path: Path, stream: Stream
) -> None:
    saved = tmp_path / "saved"
    assert (await backup(runtime.server, "save", saved))[0] == 0
    (saved / stream / META).unlink()
    async with NatsServer(tmp_path / "empty") as empty:
        code, said = await backup(empty, "restore", saved)
        assert code == 1
        assert "backup_broken" in said


async def test_old_backups_go_and_nothing_else(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "0-not-a-backup").mkdir()
    for name in ("1", "2", "3"):
        assert (await backup(runtime.server, "save", tmp_path / name, "--keep", "2"))[0] == 0
    code, said = await backup(runtime.server, "save", tmp_path / "4-%Y", "--keep", "2")
    assert code == 0, said
    left = sorted(one for one in os.listdir(tmp_path) if one[0].isdigit())  # noqa: PTH208
    assert left == ["0-not-a-backup", "3", f"4-{time.gmtime().tm_year}"]


def test_facts_are_saved_last_and_restored_last() -> None:
    # A request leaves its queue when its facts are stored: saved the other way round, one that is
    # taken up between the two would be in neither.
    assert ORDER[-1] is Stream.EVENTS
    assert ORDER[0] is Stream.REQUESTS
    assert set(ORDER) == set(Stream)
