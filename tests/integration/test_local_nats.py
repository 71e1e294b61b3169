import os
import signal
import socket
from pathlib import Path

import nats
import pytest

from skelgraph.local.errors import PortTaken, StoreInUse
from skelgraph.local.nats import NatsServer


async def test_what_was_stored_survives_a_kill_on_the_same_port(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server:
        before = server.url
        client = await nats.connect(server.url)
        js = client.jetstream()
        await js.add_stream(name="kept", subjects=["kept.>"])
        await js.publish("kept.one", b"x")
        await client.close()

        server.restart()

        assert server.url == before
        client = await nats.connect(server.url)
        assert (await client.jetstream().stream_info("kept")).state.messages == 1
        await client.close()


async def test_a_large_message_passes(tmp_path: Path) -> None:
    async with NatsServer(tmp_path) as server:
        client = await nats.connect(server.url)
        assert client.max_payload == 4 * 1024 * 1024
        await client.close()


def test_a_port_that_is_taken_is_named_with_its_holder(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"127\.0\.0\.1:{port}, .*pid {os.getpid()}"):
            NatsServer(tmp_path, port).launch()


def test_a_store_serves_one_server_only(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as first:
        with pytest.raises(StoreInUse, match=str(tmp_path)):
            NatsServer(tmp_path).launch()
        first.kill()
        with NatsServer(tmp_path) as second:
            assert second.alive


def test_an_end_is_told_with_the_signal(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        server.signal(signal.SIGKILL)
        server.kill()
        assert "was killed by SIGKILL" in server.obituary()
